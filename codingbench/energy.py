"""Convert raw operation counts into energy per image.

The "energy" of one network spans two orders of magnitude between the formulas in use, so a number
means little without the name of its formula. The stored tables hold counts. A :class:`Convention`
(the formula) and a :class:`Technology` (the price of one operation) turn them into energy whenever
they are read, so both can be changed without running anything again. A :class:`Pricing` is the two
together.

Both can also be defined in any Python file and named as ``file.py:variable``. The shipped ones are
those of :mod:`codingbench.conventions`.
"""

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from codingbench.conventions import (
    COMPARED,
    CONVENTIONS,
    DEFAULT_TECHNOLOGY,
    FORMER_NAMES,
    TECHNOLOGIES,
    Convention,
    Counts,
    Technology,
)
from codingbench.errors import SpecError, unknown
from codingbench.plugins.code import module_of

__all__ = [
    "COMPARED",
    "CONVENTIONS",
    "DEFAULT_PRICING",
    "DEFAULT_TECHNOLOGY",
    "EXACT_AND_PAPER",
    "TECHNOLOGIES",
    "Convention",
    "Counts",
    "Pricing",
    "Technology",
    "energy_uj",
    "get_convention",
    "get_technology",
    "pricings",
]

T = TypeVar("T")


def get_convention(name: str) -> Convention:
    """Return the convention with this name, or the one at ``file.py:variable``.

    A name of an earlier version is accepted with a warning that gives the name of today.

    Raises:
        SpecError: no such convention exists.
    """
    if name in FORMER_NAMES:
        today = FORMER_NAMES[name]
        warnings.warn(f"the energy convention {name!r} is now named {today!r}", stacklevel=2)
        name = today
    return _named("energy convention", name, CONVENTIONS, Convention)


def get_technology(name: str) -> Technology:
    """Return the technology with this name, or the one at ``file.py:variable``.

    The prefix ``45nm-`` may be left out.

    Raises:
        SpecError: no such technology exists.
    """
    short = {known.partition("-")[2]: chip for known, chip in TECHNOLOGIES.items()}
    return _named("technology", name, TECHNOLOGIES | short, Technology)


@dataclass(frozen=True)
class Pricing:
    """A convention and a technology: everything needed to turn counts into energy.

    >>> counts = {"effective_binary": 8000, "effective_signed": 0, "effective_level": 0}
    >>> counts |= {"effective_real": 900, "gate_muls": 100, "images": 2}
    >>> round(Pricing.of("exact").energy_uj(counts), 6)
    0.0059
    """

    convention: Convention
    technology: Technology

    @classmethod
    def of(cls, convention: str = "exact", technology: str = DEFAULT_TECHNOLOGY) -> Self:
        """Look up both by the names that a user gives.

        Args:
            convention: as :func:`get_convention` takes it.
            technology: as :func:`get_technology` takes it.

        Raises:
            SpecError: no such convention or technology exists.
        """
        return cls(get_convention(convention), get_technology(technology))

    def energy_uj(self, rows: Counts) -> Any:
        """Return the energy of one image in microjoules.

        Args:
            rows: the counts and the number of ``images`` that they were summed over.

        Returns:
            A number for one row, a Series for a DataFrame; NaN where a count is unknown, because an
            earlier version did not count it.

        Raises:
            SpecError: the convention reads a count that does not exist.
        """
        try:
            picojoules = self.convention.picojoules(rows, self.technology)
        except KeyError as error:
            from codingbench.schema import COUNTS  # imports pyarrow, which --help must not need

            missing = unknown("count", str(error.args[0]), COUNTS)
            raise SpecError(f"{self.convention.name}: {missing}") from error
        return picojoules / rows["images"] * 1e-6

    def __str__(self) -> str:
        """Describe the formula and its prices in one line."""
        own = self.convention.own_prices
        prices = own or self.prices(of_memory=self.convention.name == "memory")
        return f"energy ({self.convention.name}): {self.convention.summary}; {prices}"

    @property
    def priced_by(self) -> str:
        """The name of the technology, or of the convention if its prices are its own."""
        return self.convention.name if self.convention.own_prices else self.technology.name

    def prices(self, of_memory: bool) -> str:
        """Describe the prices; that of a byte only if a formula that reads it is shown."""
        chip = self.technology
        memory = f", {chip.byte_pj} pJ per byte" if of_memory else ""
        return f"{chip.name}, {chip.mac_pj} pJ per MAC, {chip.ac_pj} pJ per AC{memory}"


DEFAULT_PRICING: Final = Pricing(CONVENTIONS["exact"], TECHNOLOGIES[DEFAULT_TECHNOLOGY])
"""Operations as executed, in 32-bit floating point on a 45 nm chip."""

COMPUTE_AND_MEMORY: Final = ("exact", "memory")
"""The default conventions of the leaderboard: without and with the traffic of memory."""

EXACT_AND_PAPER: Final = tuple(
    Pricing(CONVENTIONS[name], DEFAULT_PRICING.technology) for name in ("exact", "paper")
)
"""The default pricings of ``codingbench show`` and of model cards."""


def pricings(
    conventions: Iterable[str], technology: str | Technology = DEFAULT_TECHNOLOGY
) -> tuple[Pricing, ...]:
    """Return one pricing for each convention; ``all`` stands for ``COMPARED``.

    A convention that is given twice is returned once.

    Raises:
        SpecError: no such convention or technology exists, or two conventions have one name.
    """
    chip = technology if isinstance(technology, Technology) else get_technology(technology)
    names = [spec for name in conventions for spec in (COMPARED if name == "all" else [name])]
    found: dict[str, Convention] = {}
    for convention in map(get_convention, names):
        if found.setdefault(convention.column, convention) is not convention:
            raise SpecError(f"two energy conventions are named {convention.name!r}")
    return tuple(Pricing(convention, chip) for convention in found.values())


def energy_uj(rows: Counts, convention: str = "exact", technology: str = DEFAULT_TECHNOLOGY) -> Any:
    """Return the energy of one image in microjoules: ``Pricing.of(...).energy_uj(rows)``.

    Raises:
        SpecError: no such convention or technology exists, or the convention reads a count that
            does not exist.

    >>> counts = {"effective_binary": 8000, "effective_signed": 0, "effective_level": 0}
    >>> counts |= {"effective_real": 900, "gate_muls": 100, "images": 2}
    >>> round(energy_uj(counts), 6)
    0.0059
    """
    return Pricing.of(convention, technology).energy_uj(rows)


def _named(kind: str, name: str, known: Mapping[str, T], cls: type[T]) -> T:
    if not isinstance(name, str):
        raise SpecError(f"{kind} expects a name, got {name!r}")
    path, colon, variable = name.rpartition(":")
    if not (colon and path.endswith(".py")):
        if name not in known:
            raise SpecError(unknown(kind, name, known))
        return known[name]
    path = os.path.expanduser(path)
    if not Path(path).is_file():
        raise SpecError(f"no file {path!r} for {kind} {name}")
    there = vars(module_of(Path(path)))
    own = {key: value for key, value in there.items() if isinstance(value, cls)}
    if variable not in own:
        raise SpecError(unknown(f"{kind} in {path}:", variable, own))
    return own[variable]
