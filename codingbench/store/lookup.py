"""Find the cells that a user names by the first characters of their keys."""

import difflib
from collections.abc import Sequence
from string import hexdigits
from typing import Final

from codingbench.errors import SpecError
from codingbench.store.absence import nothing_in, of_folder, run_command
from codingbench.store.folder import Store

ALL: Final = "all"
"""Stands for every finished cell."""

_MIN_PREFIX: Final = 4


def find(store: Store, cell: str) -> str:
    """Return the key of the finished or failed cell whose key begins with ``cell``.

    Raises:
        SpecError: ``cell`` is shorter than 4 characters, or no key or several keys begin with it.
    """
    keys = sorted(store.finished() | store.failed())
    if cell in keys:
        return cell
    if not keys:
        why = f"{nothing_in(store.folder)}; {run_command(store.folder)}"
        raise SpecError(f"no cell {cell!r}: {why}")
    if len(cell) < _MIN_PREFIX or not set(cell) <= set(hexdigits):
        raise SpecError(
            f"expected a key or its first {_MIN_PREFIX} or more characters, such as "
            f"{keys[0][:8]!r}, got {cell!r}; codingbench list cells{of_folder(store.folder)} "
            "lists keys"
        )
    candidates = [key for key in keys if key.startswith(cell)]
    if not candidates:
        nearest = ", ".join(difflib.get_close_matches(cell, keys, n=3, cutoff=0.0))
        raise SpecError(
            f"no cell {cell!r} in {str(store.folder)!r}; nearest of {len(keys)}: {nearest}"
        )
    if len(candidates) > 1:
        raise SpecError(f"{cell!r} is the beginning of several cells: {', '.join(candidates)}")
    return candidates[0]


def find_all(store: Store, cells: Sequence[str]) -> list[str]:
    """Return the keys that begin with the entries of ``cells``, each once.

    Args:
        store: the results.
        cells: keys or their first 4 or more characters; ``["all"]`` for all finished cells.

    Raises:
        SpecError: an entry fits no cell or several, or the store has no finished cell.
    """
    if list(cells) != [ALL]:
        return list(dict.fromkeys(find(store, cell) for cell in cells))
    if keys := sorted(store.finished()):
        return keys
    raise SpecError(f"{nothing_in(store.folder)}; {run_command(store.folder)}")
