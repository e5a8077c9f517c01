"""Results on disk: Parquet tables, each cell written whole or not at all, by any number of writers.

``<folder>/<table>/<key>.parquet`` holds one cell's rows, ``<folder>/<table>/compact/*.parquet``
those of many (``compaction.py``); :mod:`codingbench.schema` has the columns. A cell is
finished if and only if its row in ``cells`` exists. That row is published last, so a run that is
killed at any moment leaves either a finished cell or parts that no reader takes into account.
Where a cell has rows in its own part and in a compact one, its own part is right.

What changes a folder in more than one step holds ``.locks/store.lock``; who runs a cell holds
``.locks/<key>.lock``. They are locks of the operating system: a process that dies frees its own.
Reading takes no lock.
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
"""The tables that a commit writes before ``cells``."""

DEFAULT_FOLDER: Final = Path("results")
"""Where results go unless the user says otherwise."""

LOCK_WAIT_S: Final = 600
"""How long a writer waits for others to finish theirs: compaction holds the lock for seconds."""

_READINGS: Final = 3  # how often a reader starts anew because compaction moved what it was reading

Row = Mapping[str, Any]


class Store(Layout):
    """The results folder. Nothing is read or created before a method is called.

    Every method raises :class:`StoreError`, with one line, for what the file system refuses and
    for files that are not what a store holds.
    """

    def check_writable(self) -> None:
        """Make the folder and write a probe into it, to fail before hours of training do.

        Raises:
            StoreError: the folder cannot be made or written.
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
        """Publish the rows of a finished cell, all five tables or none; replaces an older commit.

        What was measured of the older commit afterwards goes with it.

        Args:
            key: the cell's key, also in the ``key`` column of every row.
            tables: ``cells``, ``steps``, ``layers``, ``epochs`` and ``predictions``, and those of
                ``LATER_TABLES`` that there are; each with exactly the columns of the schema.

        Raises:
            StoreError: the disk is full or refuses; an older commit of the cell is then still there
                unless the refusal came in the middle of the renames.
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
        """Publish what was measured of a finished cell afterwards; replaces what it had there.

        Args:
            key: the cell's key, also in every row.
            table: one of ``LATER_TABLES``.
            rows: with exactly the columns of the schema.

        Raises:
            StoreError: the cell is not finished, or the rows cannot be written.
            ValueError: the table, columns or key are not those of the schema.
        """
        if table not in LATER_TABLES:
            raise ValueError(f"expected one of the tables {LATER_TABLES}, got {table!r}")
        checked = uniform(table, key, rows)
        if not self.is_finished(key):
            raise StoreError(f"no finished cell {key!r} in {str(self.folder)!r}")
        self._publish(key, {table: checked})

    def record_failure(self, key: str, row: Row) -> None:
        """Note why a cell failed; a later commit of the cell removes the note.

        Raises:
            StoreError: the note cannot be written.
            ValueError: the columns or the key are not those of the schema.
        """
        self._publish(key, {"failures": uniform("failures", key, [row])})

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """True inside the ``with`` if the cell is the caller's to run, False if another runs it.

        Of all processes and threads one at a time gets True for a key. Whoever gets it must ask
        :meth:`is_finished` again: another may have finished the cell just before. A process that
        dies gives up its claims.

        Raises:
            StoreError: the folder cannot be written.
            ValueError: ``key`` is not 16 hexadecimal digits.
        """
        if not is_key(key):
            raise ValueError(f"a key is 16 hexadecimal digits in lower case, got {key[:80]!r}")
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
                # While it is held: who opened the file before notices that it has no name any more.
                discard(Path(lock.lock_file))
                lock.release()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep all other writers out, for what takes more than one step.

        Raises:
            StoreError: others hold the lock for more than ``LOCK_WAIT_S``; or what happens inside
                is refused by the file system.
        """
        try:
            with self._lock("store", LOCK_WAIT_S):
                yield
        except filelock.Timeout:
            raise StoreError(
                f"another process has been writing the results folder {str(self.folder)!r} "
                f"for over {LOCK_WAIT_S} s"
            ) from None
        except OSError as error:
            raise self.refused(error) from error

    def is_finished(self, key: str) -> bool:
        """Whether the cell is finished, without listing the folder."""
        return is_key(key) and self.has("cells", key)

    def finished(self) -> set[str]:
        """Keys of the finished cells, by listing and the key column of compact parts."""
        return self.keys("cells")

    def failed(self) -> set[str]:
        """Keys of the cells that failed and were not finished since."""
        return self.keys("failures") - self.finished()

    def failures(self) -> "pd.DataFrame":
        """One row per failed cell that was not finished since."""
        return self.read("failures")

    def read(self, table: str, keys: Collection[str] | None = None) -> "pd.DataFrame":
        """The rows of all finished cells, or of those among ``keys``, in the order of the keys.

        Of ``failures`` those of the failed cells. Other cells' rows are left out. A table whose
        folder is absent is empty.

        Raises:
            StoreError: a part is missing, damaged, or has other columns.
        """
        frame: pd.DataFrame = self.read_table(table, keys).to_pandas()
        return frame

    def read_table(self, table: str, keys: Collection[str] | None = None) -> pa.Table:
        """:meth:`read` as an Arrow table.

        Raises:
            StoreError: a part is missing, damaged, or has other columns.
        """
        shown = self.shown(table)
        return self._rows(table, shown if keys is None else shown & set(keys))

    def shown(self, table: str) -> set[str]:
        """The cells whose rows of ``table`` count: failed ones in ``failures``, else finished; of
        ``LATER_TABLES`` those that have any."""
        if table == "failures":
            return self.failed()
        if table in LATER_TABLES:
            return self.finished() & self.keys(table)
        return self.finished()

    def refused(self, error: OSError) -> StoreError:
        """What the file system refused, as one line."""
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = "a part of this path is a file, expected a folder"
        return StoreError(f"cannot write the results folder {str(self.folder)!r}: {reason}")

    def _rows(self, table: str, wanted: set[str]) -> pa.Table:
        # Reference tables may be handed on without the large ones.
        if not (self.folder / table).is_dir():
            return TABLES[table].empty_table()
        for _ in range(_READINGS):
            try:
                return self._rows_as_listed(table, wanted)
            except FileNotFoundError as error:
                missing = error.filename
        raise StoreError(f"{missing!r} is missing, though its cell is finished")

    def _rows_as_listed(self, table: str, wanted: set[str]) -> pa.Table:
        singles, compacts = self.listed(table)
        own = wanted & singles
        pieces, left, ordered = [], wanted - own, sorted(wanted - own)
        for part in compacts:
            first, last = key_range(part.name) or ("", "")
            at = bisect_left(ordered, first)
            if at == len(ordered) or ordered[at] > last:
                continue  # by its name; a part of a large table need not be opened
            if held := self.keys_of(part) & left:
                whole = held == self.keys_of(part)
                rows = load(part, table, None if whole else held)
                if pc.count_distinct(rows["key"]).as_py() != len(held):
                    raise FileNotFoundError(errno.ENOENT, "cells were taken out", str(part))
                pieces.append(rows)
                left -= held
        # A key that no part has is asked for by the name of its own part, and found missing.
        pieces += [load(self.single(table, k), table) for k in sorted(own | left)]
        rows = pa.concat_tables([TABLES[table].empty_table(), *pieces])
        return rows if is_sorted(rows) else rows.take(pc.sort_indices(rows["key"]))

    def _publish(self, key: str, tables: Mapping[str, pa.Table]) -> None:
        """Write every table beside its place, then rename them there, in the order given."""
        staged: list[tuple[Path, Path]] = []
        try:
            for name, table in tables.items():
                part = self.single(name, key)
                part.parent.mkdir(parents=True, exist_ok=True)
                # The dot hides it from every reader of the folder, pandas among them.
                temporary = temporary_beside(part)
                staged.append((temporary, part))
                write_through(temporary, encode(table))
            with self.alone():
                if "cells" in tables:
                    # Or a crash between the renames would pair the old cell with new rows.
                    self._withdraw(key)
                for temporary, part in staged:
                    os.replace(temporary, part)
                    sync_folder(part.parent)
                if "cells" in tables:
                    _remove(self.single("failures", key))
        except OSError as error:
            raise self.refused(error) from error
        finally:
            for temporary, _ in staged:
                discard(temporary)

    def _withdraw(self, key: str) -> None:
        """Take an older commit of the cell out: from then on the cell is unfinished."""
        _remove(self.single("cells", key))
        if any(key in self.keys_of(part) for part in self.compacts("cells", key)):
            self._take_out(key, ("cells", *RESULT_TABLES))
        # even what a crash has left: the new commit may have no rows to hide them behind
        self._take_out(key, LATER_TABLES)
        for table in LATER_TABLES:
            _remove(self.single(table, key))

    def _take_out(self, key: str, tables: Sequence[str]) -> None:
        """Write compact parts anew without the cell."""
        for table in tables:
            for part in self.compacts(table, key):
                if others := self.keys_of(part) - {key}:
                    if key in self.keys_of(part):
                        write_durably(part, encode(load(part, table, others, check=True)))
                else:
                    _remove(part)

    def _lock(self, name: str, timeout: float) -> filelock.BaseFileLock:
        try:
            folder = self.folder / ".locks"
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.refused(error) from error
        return filelock.FileLock(folder / f"{name}.lock", timeout=timeout, poll_interval=0.01)


def _remove(part: Path) -> None:
    if part.exists():
        part.unlink(missing_ok=True)
        sync_folder(part.parent)
