"""The files of a results folder and the cells they hold.

``<table>/<key>.parquet`` is a single part: the rows of one cell.
``<table>/compact/<first key>-<last key>-<id>.parquet`` is a compact part: the rows of many cells.
Files with other names are ignored.
"""

import os
from pathlib import Path
from typing import Final

from codingbench.errors import StoreError
from codingbench.store.parts import key_of, key_range, keys_in

CHECKPOINTS: Final = "checkpoints"
"""Folder of a store that holds the checkpoints of unfinished cells."""

WEIGHTS: Final = "weights"
"""Folder of a store that holds the weights of finished cells."""


class Layout:
    """The parts of a results folder. Each method lists the folder again."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._known_keys: dict[Path, tuple[tuple[int, ...], frozenset[str]]] = {}

    @property
    def folders(self) -> list[Path]:
        """The folders that are read: this one."""
        return [self.folder]

    def has_table(self, table: str) -> bool:
        """Return whether the folder of a table exists."""
        return (self.folder / table).is_dir()

    def single(self, table: str, key: str) -> Path:
        """Return the path of a cell's single part, whether it exists or not."""
        return self.folder / table / f"{key}.parquet"

    def singles(self, table: str) -> set[str]:
        """Return the keys of all cells with a single part."""
        return {key for name in _names(self.folder / table) if (key := key_of(name))}

    def compacts(self, table: str, key: str | None = None) -> list[Path]:
        """Return a table's compact parts, sorted; given a key, those whose range includes it."""
        folder = self.folder / table / "compact"
        ranges = {name: key_range(name) for name in _names(folder)}
        return [
            folder / name
            for name, held in sorted(ranges.items())
            if held and (key is None or held[0] <= key <= held[1])
        ]

    def keys_of(self, part: Path) -> frozenset[str]:
        """Return the keys in a compact part, or none if it was removed; unchanged files are cached.

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
        """Return the keys of all cells with rows in a table, finished or not."""
        while True:
            singles, compacts = self.listed(table)
            found = singles.union(*map(self.keys_of, compacts))
            if (
                self.compacts(table) == compacts
            ):  # otherwise one may have been removed before it was read
                return found

    def has(self, table: str, key: str) -> bool:
        """Return whether the cell has rows in a table, without listing the single parts."""
        while True:
            compacts = self.compacts(table, key)
            if self.single(table, key).exists():
                return True
            if any(key in self.keys_of(part) for part in compacts):
                return True
            if self.compacts(table, key) == compacts:
                return False

    def listed(self, table: str) -> tuple[set[str], list[Path]]:
        """Return keys with single parts, and compact parts, that together hold all cells.

        This holds even during a compaction, which publishes a compact part before it removes the
        single parts.
        """
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
