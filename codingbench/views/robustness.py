"""Measured robustness as tables to read, or as JSON, CSV, Markdown."""

import math
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any, Final

import pandas as pd
from rich.console import Group

from codingbench.errors import SpecError, unknown
from codingbench.robustness.attacks import ATTACKS, GREY_LEVELS
from codingbench.store.folder import Store
from codingbench.store.plausible import read
from codingbench.views import writers as formats
from codingbench.views.leaderboard import Column, View

FORMATS: Final = {name: formats.FORMATS[name] for name in ("table", "json", "csv", "markdown")}
"""What ``--format`` takes. JSON and CSV have the columns of table ``robustness``, a row per cell
and condition."""

_OF_CODE: Final = [name for name, attack in ATTACKS.items() if attack.perturbs == "code"]
_WITHIN_EPS: Final = [name for name, attack in ATTACKS.items() if attack.unit == "eps"]
_GROUP: Final = ("dataset", "recipe", "epochs", "train_samples", "backbone", "images")
_CELL: Final = ["key", "encoder", "num_steps", "seed"]


def check_format(form: str) -> None:
    """Refuse a format that does not exist.

    Raises:
        SpecError: names the nearest one.
    """
    if form not in FORMATS:
        raise SpecError(unknown("format", form, FORMATS))


def present(store: Store, keys: Collection[str], form: str = "table") -> str | Group:
    """What the store has of the robustness of these cells, as text or for ``table`` to be printed.

    Raises:
        SpecError: no such format.
        StoreError: the store cannot be read.
    """
    check_format(form)
    rows = in_order(read(store, "robustness", keys))
    if form in ("json", "csv"):
        return FORMATS[form](View(rows, [], lambda group: iter(()), []), [])
    return FORMATS[form](view(rows), [])


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """By the coordinates of the cells, then as conditions are measured, the weakest first."""
    names = list(ATTACKS)
    order = rows["attack"].map({name: i for i, name in enumerate(names)})
    by = [*_GROUP, "num_steps", "encoder", "seed", "key", "order", "strength"]
    return rows.assign(order=order).sort_values(by).drop(columns="order").reset_index(drop=True)


def view(rows: pd.DataFrame) -> View:
    """A line per cell, a column per condition, in tables of what noise takes, what lost and moved
    values of the code take, and what attacks of each size take."""
    at = rows[["attack", "strength"]].drop_duplicates().itertuples(index=False, name=None)
    found = [(str(attack), float(strength)) for attack, strength in at]
    noise = [one for one in sorted(found) if ATTACKS[one[0]].unit == "sigma"]
    of_code = [one for name in _OF_CODE for one in sorted(found) if one[0] == name]
    strengths = sorted({strength for name, strength in found if name in _WITHIN_EPS})
    within = [[(name, s) for name in _WITHIN_EPS if (name, s) in found] for s in strengths]
    lines = rows[[*_GROUP, *_CELL]].drop_duplicates().reset_index(drop=True)
    measured = {key: _accuracies(cell) for key, cell in rows.groupby("key")}
    legend = [
        f"accuracy in %, standard error up to {_error(int(rows['images'].min()))} points",
        "; ".join(
            f"{name}: {ATTACKS[name].summary}" for name in ATTACKS if name in set(rows["attack"])
        ),
        _manner(rows),
    ]
    return View(
        lines,
        [
            *_NAMES,
            _column("clean\n%", ("clean", 0.0), measured),
            *(_column(_heading(*one), one, measured) for one in noise),
        ],
        partial(_remarks, rows),
        [line for line in legend if line],
        further=[
            [*_NAMES, *(_column(_heading(*one), one, measured) for one in conditions)]
            for conditions in (of_code, *within)
            if conditions
        ],
        groups=partial(_groups, rows),
    )


Accuracies = dict[tuple[str, float], tuple[float, bool]]
"""By attack and strength; whether the gradient is masked."""


def _accuracies(cell: pd.DataFrame) -> Accuracies:
    values: Any = cell[["attack", "strength", "accuracy", "weaker_than"]].to_numpy()
    return {
        (attack, strength): (accuracy, isinstance(masked_by, str))
        for attack, strength, accuracy, masked_by in values
    }


def _column(heading: str, condition: tuple[str, float], measured: dict[Any, Accuracies]) -> Column:
    def text(row: Any) -> str:
        accuracy, is_masked = measured[row.key].get(condition, (None, False))
        return "—" if accuracy is None else f"{100 * accuracy:.1f}{'!' if is_masked else ''}"

    return Column(heading, text)


def _heading(attack: str, strength: float) -> str:
    return f"{attack}\n{_size(attack, strength)}"


def _size(attack: str, strength: float) -> str:
    if attack in _WITHIN_EPS:
        return f"{strength * GREY_LEVELS:.3g}/{GREY_LEVELS}"
    return f"{ATTACKS[attack].unit} {strength:g}"


def _groups(rows: pd.DataFrame, lines: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    for _, group in lines.groupby(list(_GROUP)):
        first: Any = next(group.itertuples())
        seeds = sorted(rows[rows["key"].isin(group["key"])]["perturbation_seed"].unique())
        yield (
            f"{first.dataset}, recipe {first.recipe}, {first.epochs} epochs, "
            f"{first.train_samples:,} training images, backbone {first.backbone}",
            f"{first.images:,} test images, perturbations of seed {', '.join(map(str, seeds))}",
            group,
        )


def _remarks(rows: pd.DataFrame, lines: pd.DataFrame) -> Iterator[str]:
    """A line for each white-box attack of a cell that is not one."""
    of_group = rows[rows["key"].isin(lines["key"])]
    for (_, attack), masked in of_group[of_group["weaker_than"].notna()].groupby(
        ["key", "attack"], sort=False
    ):
        first: Any = next(masked.itertuples())
        named = {name for text in masked["weaker_than"] for name in text.split(",")}
        controls = [name for name in _AGAINST if name in named]
        at = ", ".join(_size(first.attack, strength) for strength in masked["strength"])
        yield (
            f"! {first.encoder} at T={first.num_steps}, seed {first.seed}: {attack} at {at} is "
            f"{' and '.join(_AGAINST[name] for name in controls)}: gradient masked"
            f"{' or too few images to tell' if controls == ['signs'] else ''}, "
            "do not read as robust"
        )


_AGAINST: Final = {name: attack.as_control for name, attack in ATTACKS.items()}


def _manner(rows: pd.DataFrame) -> str:
    """How gradients were taken."""
    through = rows[(rows["gradient"] == "straight-through") & rows["source"].isna()]
    drawn = rows[rows["draws"] > 1]
    names = {
        what: ", ".join(sorted(set(some["encoder"])))
        for what, some in (("through", through), ("drawn", drawn))
    }
    said = []
    if names["through"]:
        said.append(f"gradient straight through the code (BPDA): {names['through']}")
    if names["drawn"]:
        draws = ", ".join(f"{n:.0f}" for n in sorted(drawn["draws"].unique()))
        said.append(f"mean gradient of {draws} codes (EOT): {names['drawn']}")
    iterated = rows[rows["attack"].isin([name for name in ATTACKS if ATTACKS[name].is_iterated])]
    if len(iterated):
        steps = ", ".join(f"{n:.0f}" for n in sorted(iterated["steps"].unique()))
        said.append(f"pgd: {steps} steps of 2.5 eps / steps")
    return "; ".join(said)


def _error(images: int) -> str:
    return f"{100 * math.sqrt(0.25 / images):.1f}"


_NAMES: Final = [
    Column("encoder", lambda row: row.encoder, is_number=False),
    Column("T", lambda row: str(row.num_steps)),
    Column("seed", lambda row: str(row.seed)),
]
