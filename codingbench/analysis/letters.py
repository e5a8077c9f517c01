"""A compact letter display: rows without a common letter differ significantly.

Source: Piepho, Journal of Computational and Graphical Statistics 13, 2004 (insert and absorb).
"""

from collections.abc import Iterable
from string import ascii_lowercase
from typing import Final

MOST_LETTERED: Final = 200
"""Larger groups get no letters: 200 rows have 19,900 pairs."""


def letters(rows: int, differ: Iterable[tuple[int, int]]) -> list[str] | None:
    """Return the letters of each row, from a for the first row.

    Args:
        rows: the number of rows.
        differ: the pairs of rows that differ.

    Returns:
        None if there are too many rows, or more letters than the alphabet has.

    >>> letters(3, [(0, 2)])
    ['a', 'ab', 'b']
    """
    if rows > MOST_LETTERED:
        return None
    groups = [frozenset(range(rows))]
    for pair in differ:
        groups = _absorbed(part for group in groups for part in _split(group, *pair))
        if len(groups) > len(ascii_lowercase):
            return None
    named = [*zip(ascii_lowercase, sorted(groups, key=sorted), strict=False)]
    return ["".join(letter for letter, group in named if row in group) for row in range(rows)]


def _split(group: frozenset[int], a: int, b: int) -> list[frozenset[int]]:
    """Return the group without a and the group without b, if it holds both."""
    return [group - {a}, group - {b}] if {a, b} <= group else [group]


def _absorbed(groups: Iterable[frozenset[int]]) -> list[frozenset[int]]:
    """Return the groups that are part of no other group, each once."""
    different = list(dict.fromkeys(groups))
    return [group for group in different if not any(group < other for other in different)]
