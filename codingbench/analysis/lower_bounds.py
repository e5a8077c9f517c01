"""Energies that are lower bounds, because some work of a cell could not be counted.

The counter names the modules whose operations it does not know (column ``uncounted`` of ``cells``).
The energy of such a cell is known to be too low. It is shown as a lower bound, and enters no rank,
front, ratio or difference.
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any, Final

import pandas as pd

UNCOUNTED_COLUMNS: Final[dict[str, str]] = {
    "uncounted": "modules whose work could not be counted in any of the cells; mostly empty",
    "energy_is_lower_bound": "some work was not counted, so that every energy of the row is too "
    "low; it has no rank by energy, and no ratio or difference is made of it",
}
"""The columns about work that was not counted of a row that averages cells."""


def uncounted_of(cells: pd.DataFrame) -> "pd.Series[Any]":
    """Return the list of modules of each cell whose work could not be counted.

    Args:
        cells: the table ``cells``. Without the column ``uncounted`` nothing is known to be missing.
    """
    texts = cells.reindex(columns=["uncounted"])["uncounted"].tolist()
    return pd.Series([_names(text) for text in texts], cells.index, object)


def is_lower_bound(cells: pd.DataFrame) -> "pd.Series[bool]":
    """Return whether work of each cell of the table ``cells`` was not counted."""
    return uncounted_of(cells).map(bool).astype(bool)


def known_energies(table: pd.DataFrame, column: str = "energy_uj") -> "pd.Series[float]":
    """Return the energies of rows of the leaderboard, NaN for lower bounds."""
    return table[column].astype(float).where(~table["energy_is_lower_bound"].astype(bool))


def union(lists: Iterable[list[str]]) -> list[str]:
    """Return every item of the lists once, in the order of first occurrence.

    >>> union([["a", "b"], ["c", "a"]])
    ['a', 'b', 'c']
    """
    return list(dict.fromkeys(chain.from_iterable(lists)))


def _names(text: object) -> list[str]:
    return [name.strip() for name in text.split(",")] if isinstance(text, str) and text else []
