"""Which files of a results folder hold which cells.

``<table>/<key>.parquet`` is the part of one cell, ``<table>/compact/<first>-<last>-<id>.parquet``
that of many. Files of other names are not looked at.
"""

import os
from pathlib import Path

from codingbench.errors import StoreError
from codingbench.store.parts import key_of, key_range, keys_in


class Layout:
    """The parts of a results folder, found by listing when a method is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._known_keys: dict[Path, tuple[tuple[int, ...], frozenset[str]]] = {}

    def single(self, table: str, key: str) -> Path:
        """Where the part of one cell is, or would be."""
        return self.folder / table / f"{key}.parquet"

    def singles(self, table: str) -> set[str]:
        """Keys that have a part of their own; files of other names are not looked at."""
        return {key for name in _names(self.folder / table) if (key := key_of(name))}

    def compacts(self, table: str, key: str | None = None) -> list[Path]:
        """The compact parts of a table, or those that may hold ``key`` by their names, sorted."""
        folder = self.folder / table / "compact"
        ranges = {name: key_range(name) for name in _names(folder)}
        return [
            folder / name
            for name, held in sorted(ranges.items())
            if held and (key is None or held[0] <= key <= held[1])
        ]

    def keys_of(self, part: Path) -> frozenset[str]:
        """The keys in a compact part, read again only if the file has changed; none if it is gone.

        Raises:
            StoreError: the part is damaged.
        """
        try:
            about = part.stat()
            signature = (about.st_ino, about.st_size, about.st_mtime_ns)
            known = self._known_keys.get(part)
            if known is None or known[0] != signature:
                known = self._known_keys[part] = signature, keys_in(part)
        except FileNotFoundError:
            return frozenset()
        return known[1]

    def keys(self, table: str) -> set[str]:
        """Keys that have rows in a table, whether their cells are finished or not."""
        while True:
            singles, compacts = self.listed(table)
            found = singles.union(*map(self.keys_of, compacts))
            if self.compacts(table) == compacts:  # else one may have gone before it was read
                return found

    def has(self, table: str, key: str) -> bool:
        """Whether the cell has rows in a table, without listing the parts of single cells."""
        while True:
            compacts = self.compacts(table, key)
            if self.single(table, key).exists():
                return True
            if any(key in self.keys_of(part) for part in compacts):
                return True
            if self.compacts(table, key) == compacts:
                return False

    def listed(self, table: str) -> tuple[set[str], list[Path]]:
        """Single and compact parts that together have all cells, though compaction may be moving
        them: it publishes a compact part before it removes the single ones."""
        compacts = self.compacts(table)
        while True:
            singles, before = self.singles(table), compacts
            compacts = self.compacts(table)
            if compacts == before:
                return singles, compacts


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"cannot read {str(folder)!r}: {error.strerror}") from error
