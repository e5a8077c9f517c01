"""The columns that ``codingbench leaderboard --columns`` can name."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from codingbench.analysis.leaderboard import GROUP
from codingbench.energy import Convention, Pricing, get_convention
from codingbench.errors import SpecError, unknown
from codingbench.views.rows import (
    ACCURACY,
    BALANCED,
    ENCODER,
    FIRING_RATE,
    SEEDS_COLUMN,
    STEPS,
    energy_text,
    interval_text,
    percent_text,
)
from codingbench.views.table import Column, or_none


@dataclass(frozen=True)
class Choice:
    """A column of the leaderboard, and the fields of its rows that it shows."""

    column: Column
    fields: tuple[str, ...]
    """The first one is what the report sorts by."""


_IDENTITY: Final = {
    "encoder": Choice(ENCODER, ("encoder",)),
    "T": Choice(STEPS, ("num_steps",)),
    "n": Choice(SEEDS_COLUMN, ("seeds",)),
}
"""The columns that every table has."""

CHOICES: Final[dict[str, Choice]] = _IDENTITY | {
    "rank": Choice(
        Column("rank", lambda row: or_none(row.rank, str), is_optional=True),
        ("rank", "rank_basis", "comparisons", "detectable_difference"),
    ),
    "same": Choice(
        Column("same", lambda row: or_none(row.letters, str), is_optional=True, is_raised=True),
        ("letters",),
    ),
    "accuracy": Choice(
        replace(ACCURACY, raised=lambda row: or_none(row.letters, str)),
        ("accuracy", "accuracy_std", "chance", "above_chance"),
    ),
    "balanced": Choice(BALANCED, ("balanced_accuracy",)),
    "interval": Choice(
        Column(
            "95 % CI",
            lambda row: interval_text(row.accuracy_low, row.accuracy_high),
            is_optional=True,
        ),
        ("accuracy_low", "accuracy_high"),
    ),
    "selected": Choice(
        Column("selected\n%", lambda row: percent_text(row, row.selected_accuracy)),
        ("selected_accuracy",),
    ),
    "firing-rate": Choice(FIRING_RATE, ("firing_rate",)),
    "parameters": Choice(
        Column("parameters", lambda row: f"{row.parameters:,}", "parameters"), ("parameters",)
    ),
    "keys": Choice(
        Column("keys", lambda row: " ".join(row.keys), is_number=False),
        ("keys",),
    ),
}
"""The names of columns other than energies."""

ENERGY: Final = "energy"
"""The name of the energies by the conventions of ``--energy``; ``energy:NAME`` is another one."""

DEFAULT: Final = (
    *("rank", "same", "encoder", "T", "n", "accuracy", "balanced", "interval", "firing-rate"),
    *(ENERGY, "selected", "parameters"),
)
"""The columns of the leaderboard without ``--columns``. A narrow terminal shows the last ones in a
second table."""


def check_names(names: Sequence[str]) -> None:
    """Refuse unknown names of columns.

    Raises:
        SpecError: a name is not known, or is given twice.
    """
    for name in names:
        if name not in CHOICES and name.partition(":")[0] != ENERGY:
            raise SpecError(unknown("column", name, [*CHOICES, ENERGY, f"{ENERGY}:CONVENTION"]))
        if names.count(name) > 1:
            raise SpecError(f"expected different columns, got {name!r} twice")


def expanded(names: Sequence[str], conventions: Sequence[str]) -> list[str]:
    """Return the names with ``energy`` replaced by a column for each of these conventions.

    >>> expanded(["accuracy", "energy", "energy:paper"], ["exact", "paper"])
    ['accuracy', 'energy:exact', 'energy:paper']
    """
    every = [f"{ENERGY}:{convention}" for convention in conventions]
    found = (new for name in names for new in (every if name == ENERGY else [name]))
    return list(dict.fromkeys(found))


def conventions_in(names: Sequence[str]) -> list[str]:
    """Return the conventions that columns name.

    >>> conventions_in(["accuracy", "energy:paper"])
    ['paper']
    """
    return [name.partition(":")[2] for name in names if name.startswith(f"{ENERGY}:")]


def choices(names: Sequence[str], pricings: Sequence[Pricing]) -> list[Choice]:
    """Return the columns of these names, after those that name a row.

    Args:
        names: from :func:`expanded`.
        pricings: at least those that are named. The energy by the first one is in the field
            ``energy_uj``, the others are in the columns of their conventions.
    """
    found = [pricing.convention for pricing in pricings]
    missing = [name for name in _IDENTITY if name not in names]
    return [
        CHOICES[name] if name in CHOICES else _energy_choice(name.partition(":")[2], found)
        for name in (*missing, *names)
    ]


def fields(chosen: Sequence[Choice]) -> list[str]:
    """Return the keys of JSON and CSV: the conditions of each row, then the fields chosen."""
    return list(dict.fromkeys([*GROUP, *(name for choice in chosen for name in choice.fields)]))


def energy_column(convention: str, field: str = "energy_uj") -> Column:
    """Return the column of energies by a convention, which are in ``field``."""

    def text(row: Any) -> str:
        return energy_text(getattr(row, field), row.energy_is_lower_bound)

    return Column(f"modelled\nµJ/image\n{convention}", text, field)


def _energy_choice(spec: str, found: Sequence[Convention]) -> Choice:
    """Return the column of one of the conventions found, by its name or ``file.py:variable``."""
    by_name = {convention.name: convention for convention in found}
    convention = by_name.get(spec) or get_convention(spec)
    is_first = convention.column == found[0].column
    fields = ("energy_uj", "energy_convention") if is_first else (convention.column,)
    marks = ("technology", "energy_is_lower_bound", "uncounted")
    return Choice(energy_column(convention.name, fields[0]), (*fields, *marks))
