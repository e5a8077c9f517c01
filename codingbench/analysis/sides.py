"""The two sides of a comparison: what they differ in, and why some cannot be compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pandas as pd

from codingbench.analysis.leaderboard import GROUP
from codingbench.analysis.selection import AXES, Selection, select
from codingbench.errors import SpecError, unknown
from codingbench.runtime.formatting import first_few

RECIPE_SETTINGS: Final = ["epochs", "batch_size", "micro_batch"]
"""The coordinates that a recipe sets unless the user does."""


@dataclass(frozen=True)
class Between:
    """A coordinate in which the two sides of a comparison differ."""

    column: str
    nouns: str
    """Several sides."""
    code: str | None = None
    """The column of ``CODE`` in which they differ, too."""

    def label(self, side: object) -> str:
        """Return the name of a side in tables and sentences."""
        return f"T={side}" if self.column == "num_steps" else str(side)


BETWEEN: Final[dict[str, Between]] = {
    "encoders": Between("encoder", "codings", "encoder_code"),
    "T": Between("num_steps", "numbers of steps"),
    "backbones": Between("backbone", "backbones", "backbone_code"),
    "neurons": Between("neuron", "neurons", "neuron_code"),
    "recipes": Between("recipe", "recipes", "recipe_hash"),
}
"""The values of ``--between``."""


def comparison_of(between: str, selection: Selection, against: Any) -> tuple[str, tuple[int, ...]]:
    """Return what is compared, and the T that are compared with those of the selection.

    Args:
        between: one of ``BETWEEN``.
        selection: the cells to compare.
        against: the option ``--against-T``; None if it is not given.

    Raises:
        SpecError: there is no such coordinate, or the options contradict each other.
    """
    if between not in BETWEEN:
        raise SpecError(unknown("coordinate to compare", between, BETWEEN))
    if against is None:
        return between, ()
    steps = select({"T": against}).num_steps
    if between not in ("encoders", "T"):
        raise SpecError(f"--against-T compares numbers of time steps, --between {between} does not")
    if not selection.num_steps:
        raise SpecError(f"--against-T {against} expects the other side in --T, such as --T 4")
    if twice := set(steps) & set(selection.num_steps):
        raise SpecError(f"expected different T in --T and --against-T, got T={min(twice)} in both")
    return "T", steps


def sides_of(cells: pd.DataFrame, between: str) -> list[Any]:
    """Return all values of the coordinate that is compared, sorted.

    Raises:
        SpecError: there are fewer than two.
    """
    axis = BETWEEN[between]
    found = sorted(cells[axis.column].unique().tolist())
    if len(found) < 2:
        one = axis.label(found[0])
        raise SpecError(f"expected cells of at least two {axis.nouns}, all are of {one}")
    return found


def chosen_sides(
    cells: pd.DataFrame,
    between: str,
    selection: Selection,
    encoders: Sequence[str] = (),
    against: tuple[int, ...] = (),
) -> tuple[pd.DataFrame, list[Any]]:
    """Return the selected cells, and the values of what is compared.

    The values are the selected ones in their order, or else all.

    Args:
        cells: the table ``cells``.
        between: one of ``BETWEEN``, not encoders.
        selection: the cells to compare.
        encoders: show these codings; all of them if empty.
        against: further T.

    Raises:
        SpecError: no cell has one of the values, or there are fewer than two of them.
    """
    (name,) = (name for name, axis in AXES.items() if axis.column == BETWEEN[between].column)
    wanted = replace(
        selection, encoders=tuple(encoders), num_steps=(*selection.num_steps, *against)
    )
    found = wanted.of(cells)
    sides = selection.present(name, cells)
    return found, sides if len(sides) > 1 or against else sides_of(found, between)


def ambiguous(group: pd.DataFrame) -> str:
    """Return why cells of one recipe cannot be one side of a comparison."""
    found = ", ".join(
        f"{name}={first_few(map(str, sorted(group[name].unique())))}"
        for name in RECIPE_SETTINGS
        if group[name].nunique() > 1
    )
    recipe, first = group["recipe"].iloc[0], group.iloc[0]
    return (
        f"recipe {recipe} has cells of several settings ({found}), of which none agrees with the "
        f"other recipes: choose one, such as --where \"recipe != '{recipe}' or "
        f'epochs == {first["epochs"]}"'
    )


def nothing_shared(cells: pd.DataFrame, axis: Between, sides: Sequence[Any]) -> str:
    """Return why no two sides can be compared; different files of one name are named."""
    same = [name for name in (*GROUP, "num_steps", "encoder") if name != axis.column]
    for _, group in cells.groupby([n for n in same if n != "dataset_fingerprint"], dropna=False):
        if group[axis.column].nunique() > 1:
            files = group.groupby(axis.column)["dataset_fingerprint"].unique()
            hashes = "; ".join(
                f"{axis.label(side)}: {', '.join(map(str, of))}" for side, of in files.items()
            )
            dataset = group["dataset"].iloc[0]
            return f"the files of {dataset} differ, so nothing can be compared (hash of {hashes})"
    names = ", ".join(map(axis.label, sides))
    others = [what for name, what in _ALIKE.items() if name != axis.column]
    alike = f"{', '.join(others[:-1])} and {others[-1]}"
    return f"no two of {names} have cells of the same {alike}{_also(cells, axis, same)}"


_ALIKE: Final = {
    "encoder": "coding",
    "num_steps": "T",
    "dataset": "data set",
    "recipe": "recipe",
    "backbone": "backbone",
    "neuron": "neuron",
}


def _also(cells: pd.DataFrame, axis: Between, same: Sequence[str]) -> str:
    """Return in which other coordinates two sides have no value in common."""
    parts = [part for _, part in cells.groupby(axis.column)]
    found = [
        f"{name} ({'; '.join(first_few(map(str, sorted(part[name].unique()))) for part in parts)})"
        for name in same
        if len(parts) == 2 and not set(parts[0][name]) & set(parts[1][name])
    ]
    return f": they also differ in {', '.join(found)}" if found else ""
