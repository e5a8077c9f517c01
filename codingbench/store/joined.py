"""Several results folders that are read as one."""

from collections.abc import Collection, Sequence
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from codingbench.errors import StoreError
from codingbench.schema import TABLES
from codingbench.store.equality import difference
from codingbench.store.folder import Store


class Joined(Store):
    """The cells of several stores, for reading; each cell is read from the first that has it.

    Args:
        stores: at least one, with equal results of the cells that they share.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        super().__init__(stores[0].folder)
        self._stores = stores

    @property
    def folders(self) -> list[Path]:
        """The folders of all stores."""
        return [store.folder for store in self._stores]

    def has_table(self, table: str) -> bool:
        """Return whether any of the stores has the table."""
        return any(store.has_table(table) for store in self._stores)

    def keys(self, table: str) -> set[str]:
        """Return the keys of all cells with rows in a table, finished or not."""
        return set[str]().union(*(store.keys(table) for store in self._stores))

    def is_finished(self, key: str) -> bool:
        """Return whether one of the stores has finished the cell."""
        return any(store.is_finished(key) for store in self._stores)

    def holding(self, key: str) -> Store:
        """Return the first store that has finished the cell."""
        return next((store for store in self._stores if store.is_finished(key)), self._stores[0])

    def read_table(self, table: str, keys: Collection[str] | None = None) -> pa.Table:
        """Read rows of all stores, sorted by key; see :meth:`Store.read_table`."""
        left = self.shown(table) if keys is None else self.shown(table) & set(keys)
        pieces = [TABLES[table].empty_table()]
        for store in self._stores:
            held = store.shown(table) & left
            pieces.append(store.read_table(table, held))
            left -= held
        rows = pa.concat_tables(pieces)
        return rows.take(pc.sort_indices(rows["key"]))


def joined(folders: Sequence[Path]) -> Joined:
    """Return a store that reads these folders as one; a folder that is named twice counts once.

    Raises:
        StoreError: a folder holds no results, or two have different results of one cell.
    """
    stores = [Store(folder) for folder in dict.fromkeys(map(Path.resolve, folders))]
    for store in stores:
        if not any(store.has_table(table) for table in TABLES):
            raise StoreError(f"{str(store.folder)!r} holds no results: none of the tables is there")
    for a, b in combinations(stores, 2):
        for key, columns in difference(a, b).differing.items():
            raise StoreError(
                f"{str(a.folder)!r} and {str(b.folder)!r} have different results of {key} "
                f"({', '.join(columns[:3])}), so they cannot be read as one: codingbench diff "
                "lists them, merge keeps both"
            )
    return Joined(stores)
