"""``codingbench robustness``: the accuracy that cells keep under noise, lost spikes and attacks."""

import math
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any, Final

import pandas as pd
from rich.console import Group

from codingbench.registry import network_name
from codingbench.robustness.attacks import ATTACKS, GREY_LEVELS
from codingbench.runtime.formatting import counted
from codingbench.store.folder import Store
from codingbench.store.plausible import read
from codingbench.views import writers
from codingbench.views.table import NONE, Column, View, or_none

_OF_CODE: Final = [name for name, attack in ATTACKS.items() if attack.perturbs == "code"]
_WITHIN_EPS: Final = [name for name, attack in ATTACKS.items() if attack.unit == "eps"]
_GROUP: Final = ("dataset", "recipe", "epochs", "train_samples", "backbone", "neuron", "images")
_FILES: Final = "dataset_fingerprint"
_CELL: Final = ["key", "encoder", "num_steps", "seed"]


def check_format(form: str) -> None:
    """Refuse an unknown format before anything is measured.

    Raises:
        SpecError: the message names the nearest format.
    """
    writers.check_format(form, writers.TEXT_FORMATS)


def present(store: Store, keys: Collection[str], form: str = "table") -> str | Group:
    """Return the stored robustness of these cells as text, or for ``table`` to be printed.

    JSON and CSV hold the columns of the table ``robustness``: a row per cell and condition.

    Raises:
        SpecError: no such format exists.
        StoreError: the store cannot be read.
    """
    check_format(form)
    cells = read(store, "cells", keys)
    files = dict(zip(cells["key"], cells[_FILES], strict=True))
    return writers.written(view(in_order(read(store, "robustness", keys)), files), form)


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort by the coordinates of the cells, then by attack, the weakest first."""
    names = list(ATTACKS)
    order = rows["attack"].map({name: i for i, name in enumerate(names)})
    by = [*_GROUP, "num_steps", "encoder", "seed", "key", "order", "strength"]
    return rows.assign(order=order).sort_values(by).drop(columns="order").reset_index(drop=True)


def view(rows: pd.DataFrame, files: Mapping[str, str] | None = None) -> View:
    """Show a line per cell and a column per condition.

    The tables of a group are noise, lost and moved values of the code, then attacks by their size.

    Args:
        rows: the table ``robustness``, as :func:`in_order` returns it.
        files: the hash of the data files of each cell, by key; cells of different files are in
            different groups.
    """
    at = rows[["attack", "strength"]].drop_duplicates().itertuples(index=False, name=None)
    found = [(str(attack), float(strength)) for attack, strength in at]
    noise = [one for one in sorted(found) if ATTACKS[one[0]].unit == "sigma"]
    of_code = [one for name in _OF_CODE for one in sorted(found) if one[0] == name]
    strengths = sorted({strength for name, strength in found if name in _WITHIN_EPS})
    within = [[(name, s) for name in _WITHIN_EPS if (name, s) in found] for s in strengths]
    lines = rows[[*_GROUP, *_CELL]].drop_duplicates().reset_index(drop=True)
    lines[_FILES] = lines["key"].map(files or {})
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
        data=rows,
    )


Accuracies = dict[tuple[str, float], tuple[float, bool]]
"""The accuracy, and whether the gradient is masked, by attack and strength."""


def _accuracies(cell: pd.DataFrame) -> Accuracies:
    values: Any = cell[["attack", "strength", "accuracy", "weaker_than"]].to_numpy()
    return {
        (attack, strength): (accuracy, isinstance(masked_by, str))
        for attack, strength, accuracy, masked_by in values
    }


def _column(heading: str, condition: tuple[str, float], measured: dict[Any, Accuracies]) -> Column:
    def text(row: Any) -> str:
        accuracy, is_masked = measured[row.key].get(condition, (None, False))
        return NONE if accuracy is None else f"{100 * accuracy:.1f}{'!' if is_masked else ''}"

    return Column(heading, text)


def _heading(attack: str, strength: float) -> str:
    return f"{attack}\n{_size(attack, strength)}"


def _size(attack: str, strength: float) -> str:
    if attack in _WITHIN_EPS:
        return f"{strength * GREY_LEVELS:.3g}/{GREY_LEVELS}"
    return f"{ATTACKS[attack].unit} {strength:g}"


def _groups(rows: pd.DataFrame, lines: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    different = lines.groupby("dataset")[_FILES].nunique(dropna=False)
    for _, group in lines.groupby([*_GROUP, _FILES], dropna=False):
        first: Any = next(group.itertuples())
        data = or_none(first.dataset_fingerprint, str)
        named = f" (files {data})" if different[first.dataset] > 1 else ""
        seeds = sorted(rows[rows["key"].isin(group["key"])]["perturbation_seed"].unique())
        yield (
            f"{first.dataset}{named}, recipe {first.recipe}, "
            f"{counted(int(first.epochs), 'epoch')}, "
            f"{first.train_samples:,} training images, "
            f"backbone {network_name(first.backbone, first.neuron)}",
            f"{first.images:,} test images, perturbations of seed {', '.join(map(str, seeds))}",
            group,
        )


def _remarks(rows: pd.DataFrame, lines: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each white-box attack whose result does not show robustness."""
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
            f"{' and '.join(_AGAINST[name] for name in controls)}: the gradient is masked"
            f"{' or the images are too few' if controls == ['signs'] else ''}, "
            "so this is no sign of robustness"
        )


_AGAINST: Final = {name: attack.as_control for name, attack in ATTACKS.items()}


def _manner(rows: pd.DataFrame) -> str:
    """Return how the gradients were computed."""
    through = rows[(rows["gradient"] == "straight-through") & rows["source"].isna()]
    drawn = rows[rows["draws"] > 1]
    names = {
        what: ", ".join(sorted(set(some["encoder"])))
        for what, some in (("through", through), ("drawn", drawn))
    }
    said = []
    if names["through"]:
        said.append(f"straight-through gradient of the code (BPDA): {names['through']}")
    if names["drawn"]:
        draws = ", ".join(f"{n:.0f}" for n in sorted(drawn["draws"].unique()))
        said.append(f"gradient averaged over {draws} random codes (EOT): {names['drawn']}")
    iterated = rows[rows["attack"].isin([name for name in ATTACKS if ATTACKS[name].is_iterated])]
    if len(iterated):
        steps = ", ".join(f"{n:.0f}" for n in sorted(iterated["steps"].unique()))
        said.append(f"pgd: {steps} steps of 2.5 eps / steps")
    return "; ".join(said)


def _error(images: int) -> str:
    return f"{100 * math.sqrt(0.25 / images):.1f}"


_NAMES: Final = [
    Column("encoder", lambda row: row.encoder, is_number=False, is_key=True),
    Column("T", lambda row: str(row.num_steps), is_key=True),
    Column("seed", lambda row: str(row.seed), is_key=True),
]
