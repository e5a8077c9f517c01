"""The results folder: Parquet tables to which any number of processes can write whole cells.

``<table>/<key>.parquet`` holds the rows of one cell, ``<table>/compact/*.parquet`` those of many
(:mod:`codingbench.store.compaction`). The columns are in :mod:`codingbench.schema`.

A cell is finished if and only if its row in ``cells`` exists. That row is written last, so a run
that is killed at any moment leaves either a finished cell or parts that every reader ignores. If a
cell has rows in both its single part and a compact part, the single part is valid.

A writer that changes the folder in several steps holds ``.locks/store.lock``. A process that runs a
cell holds ``.locks/<key>.lock``. These are locks of the operating system, which releases them when
a process dies. Reading takes no lock.
"""

import errno
import os
import secrets
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import filelock
import pyarrow as pa
import pyarrow.compute as pc

from codingbench.errors import StoreError
from codingbench.schema import LATER_TABLES, TABLES
from codingbench.store.durable import (
    discard,
    remove_durably,
    sync_folder,
    temporary_beside,
    write_durably,
    write_through,
)
from codingbench.store.layout import Layout
from codingbench.store.parts import encode, is_key, is_sorted, key_range, load, uniform

if TYPE_CHECKING:
    import pandas as pd

RESULT_TABLES: Final = tuple(
    name for name in TABLES if name not in ("cells", "failures", *LATER_TABLES)
)
"""Tables that a commit writes before ``cells``."""

DEFAULT_FOLDER: Final = Path("results")
"""The results folder if the user names none."""

LOCK_WAIT_S: Final = 600
"""Longest time to wait for other writers. Compaction holds the lock for a few seconds."""

_ATTEMPTS: Final = 3  # to read rows while others move or remove them

Row = Mapping[str, Any]


class Store(Layout):
    """A results folder. Nothing is read or created before a method is called.

    Every method raises :class:`StoreError` with a one-line message if the file system reports an
    error or a file is damaged.
    """

    def check_writable(self) -> None:
        """Create the folder and write a test file, so that errors show before hours of training.

        Raises:
            StoreError: the folder cannot be created or written.
        """
        probe = self.folder / f".probe-{secrets.token_hex(4)}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"probe")
        except OSError as error:
            raise self.refused(error) from error
        finally:
            discard(probe)

    def commit(self, key: str, tables: Mapping[str, "Sequence[Row] | pa.Table"]) -> None:
        """Write the rows of a finished cell, all tables or none, replacing an older commit.

        Rows in ``LATER_TABLES`` that belong to the older commit are removed.

        Args:
            key: the cell's key, which is also in the ``key`` column of every row.
            tables: rows of ``cells``, ``steps``, ``layers``, ``epochs`` and ``predictions``, and
                optionally of ``LATER_TABLES``, each with exactly the columns of the schema.

        Raises:
            StoreError: the rows cannot be written, for instance because the disk is full. An older
                commit is then unchanged, unless the error occurred between the final renames.
            ValueError: tables, columns or keys are not those of the schema.
        """
        order = (*RESULT_TABLES, *(name for name in LATER_TABLES if name in tables), "cells")
        if set(tables) != set(order):
            raise ValueError(f"a commit needs the tables {sorted(order)}, got {sorted(tables)}")
        checked = {name: uniform(name, key, tables[name]) for name in order}
        if checked["cells"].num_rows != 1:
            raise ValueError(f"cells must have 1 row, got {checked['cells'].num_rows}")
        self._publish(key, checked)

    def add(self, key: str, table: str, rows: "Sequence[Row] | pa.Table") -> None:
        """Write rows that were measured after a cell had finished, replacing older ones.

        Args:
            key: the cell's key, which is also in every row.
            table: one of ``LATER_TABLES``.
            rows: rows with exactly the columns of the schema.

        Raises:
            StoreError: the cell is not finished, or the rows cannot be written.
            ValueError: the table, columns or key are not those of the schema.
        """
        if table not in LATER_TABLES:
            raise ValueError(f"table must be one of {LATER_TABLES}, got {table!r}")
        checked = uniform(table, key, rows)
        if not self.is_finished(key):
            raise StoreError(f"no finished cell {key!r} in {str(self.folder)!r}")
        self._publish(key, {table: checked})

    def record_failure(self, key: str, row: Row) -> None:
        """Record why a cell failed. A later commit of the cell removes the record.

        Raises:
            StoreError: the record cannot be written.
            ValueError: the columns or the key are not those of the schema.
        """
        self._publish(key, {"failures": uniform("failures", key, [row])})

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Reserve a cell inside a ``with`` block: True if the caller may run it, else False.

        Only one process or thread at a time gets True for a key. It must then call
        :meth:`is_finished` again, because another process may just have finished the cell. The
        claims of a process end when it dies.

        Raises:
            StoreError: the folder cannot be written.
            ValueError: ``key`` is not 16 hexadecimal digits.
        """
        if not is_key(key):
            raise ValueError(f"key must be 16 hexadecimal digits in lower case, got {key[:80]!r}")
        lock = self._lock(key, timeout=0)
        try:
            with suppress(filelock.Timeout):
                lock.acquire()
        except OSError as error:
            raise self.refused(error) from error
        try:
            yield lock.is_locked
        finally:
            if lock.is_locked:
                # Removed while locked: another process that has it open will notice that the
                # file has no name any more, and open a new one.
                discard(Path(lock.lock_file))
                lock.release()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Exclude all other writers inside a ``with`` block.

        Raises:
            StoreError: others hold the lock for more than ``LOCK_WAIT_S`` seconds, or the file
                system reports an error inside the block.
        """
        try:
            with self._lock("store", LOCK_WAIT_S):
                yield
        except filelock.Timeout:
            raise StoreError(
                f"cannot lock the results folder {str(self.folder)!r}: "
                f"another process has held the lock for more than {LOCK_WAIT_S} s"
            ) from None
        except OSError as error:
            raise self.refused(error) from error

    def holding(self, key: str) -> "Store":
        """Return the store of a single folder that holds the cell: this one."""
        return self

    def is_finished(self, key: str) -> bool:
        """Return whether the cell is finished, without listing the folder."""
        return is_key(key) and self.has("cells", key)

    def finished(self) -> set[str]:
        """Return the keys of all finished cells."""
        return self.keys("cells")

    def failed(self) -> set[str]:
        """Return the keys of the cells that failed and have not been finished since."""
        return self.keys("failures") - self.finished()

    def failures(self) -> "pd.DataFrame":
        """Return one row per cell that failed and has not been finished since."""
        return self.read("failures")

    def read(self, table: str, keys: Collection[str] | None = None) -> "pd.DataFrame":
        """Read the rows of all finished cells (``failures``: of the failed ones), sorted by key.

        Rows of other cells are left out. A table without a folder is empty.

        Args:
            table: name of the table.
            keys: read the rows of these cells only; None: of all.

        Raises:
            StoreError: a part is missing, damaged, or has other columns.
        """
        frame: pd.DataFrame = self.read_table(table, keys).to_pandas()
        return frame

    def read_table(self, table: str, keys: Collection[str] | None = None) -> pa.Table:
        """Read rows as :meth:`read` does, but return an Arrow table.

        Raises:
            StoreError: a part is missing, damaged, or has other columns.
        """
        # Published results may lack the folders of the large tables.
        if not self.has_table(table):
            return TABLES[table].empty_table()
        for _ in range(_ATTEMPTS):
            shown = self.shown(table)  # again: a cell may have been removed meanwhile
            try:
                return self._rows_as_listed(table, shown if keys is None else shown & set(keys))
            except FileNotFoundError as error:
                missing = error.filename
        raise StoreError(f"{missing!r} is missing although its cell is finished")

    def shown(self, table: str) -> set[str]:
        """Return the keys of the cells that readers see in a table.

        These are the failed cells for ``failures``, the finished cells with such rows for
        ``LATER_TABLES``, and all finished cells for the other tables.
        """
        if table == "failures":
            return self.failed()
        if table in LATER_TABLES:
            return self.finished() & self.keys(table)
        return self.finished()

    def refused(self, error: OSError) -> StoreError:
        """Convert an error of the file system to a one-line StoreError."""
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = "a part of this path is a file, expected a folder"
        return StoreError(f"cannot write the results folder {str(self.folder)!r}: {reason}")

    def _rows_as_listed(self, table: str, wanted: set[str]) -> pa.Table:
        singles, compacts = self.listed(table)
        own = wanted & singles
        pieces, left, ordered = [], wanted - own, sorted(wanted - own)
        for part in compacts:
            first, last = key_range(part.name) or ("", "")
            at = bisect_left(ordered, first)
            if at == len(ordered) or ordered[at] > last:
                continue  # the range in its name excludes all keys, so it need not be opened
            if held := self.keys_of(part) & left:
                whole = held == self.keys_of(part)
                rows = load(part, table, None if whole else held)
                if pc.count_distinct(rows["key"]).as_py() != len(held):
                    raise FileNotFoundError(errno.ENOENT, "cells were taken out", str(part))
                pieces.append(rows)
                left -= held
        # The key of a missing part is read like a single part, so that the error names that file.
        pieces += [load(self.single(table, k), table) for k in sorted(own | left)]
        rows = pa.concat_tables([TABLES[table].empty_table(), *pieces])
        return rows if is_sorted(rows) else rows.take(pc.sort_indices(rows["key"]))

    def _publish(self, key: str, tables: Mapping[str, pa.Table]) -> None:
        """Write all tables to temporary files, then rename these in the order given."""
        staged: list[tuple[Path, Path]] = []
        try:
            for name, table in tables.items():
                part = self.single(name, key)
                part.parent.mkdir(parents=True, exist_ok=True)
                # A leading dot hides the file from all readers, even pandas.
                temporary = temporary_beside(part)
                staged.append((temporary, part))
                write_through(temporary, encode(table))
            with self.alone():
                if "cells" in tables:
                    # Otherwise a crash between the renames would mix old and new rows.
                    self._withdraw(key)
                for temporary, part in staged:
                    os.replace(temporary, part)
                    sync_folder(part.parent)
                if "cells" in tables:
                    remove_durably(self.single("failures", key))
        except OSError as error:
            raise self.refused(error) from error
        finally:
            for temporary, _ in staged:
                discard(temporary)

    def _withdraw(self, key: str) -> None:
        """Remove an older commit of the cell, which makes the cell unfinished."""
        remove_durably(self.single("cells", key))
        if any(key in self.keys_of(part) for part in self.compacts("cells", key)):
            self.take_out({key}, ("cells", *RESULT_TABLES))
        # also rows left by a crash, which the new commit might not replace
        self.take_out({key}, LATER_TABLES)
        for table in LATER_TABLES:
            remove_durably(self.single(table, key))

    def take_out(self, keys: Collection[str], tables: Sequence[str]) -> None:
        """Rewrite compact parts without the rows of some cells; the caller excludes other writers.

        Raises:
            OSError: a part cannot be written.
            StoreError: a part is damaged.
        """
        for table in tables:
            for part in self.compacts(table):
                held = self.keys_of(part)
                if others := held - set(keys):
                    if others != held:
                        write_durably(part, encode(load(part, table, others, check=True)))
                else:
                    remove_durably(part)

    def _lock(self, name: str, timeout: float) -> filelock.BaseFileLock:
        try:
            folder = self.folder / ".locks"
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.refused(error) from error
        return filelock.FileLock(folder / f"{name}.lock", timeout=timeout, poll_interval=0.01)
