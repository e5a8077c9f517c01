"""Results on disk: Parquet tables, one part per cell and table, written whole or not at all.

``<folder>/<table>/<key>.parquet``; :mod:`codingbench.schema` has the columns. A cell is finished
if and only if its part in ``cells`` exists. That part is published last, so a run that is killed
at any moment leaves either a finished cell or parts that no reader takes into account.
"""

import contextlib
import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from codingbench.errors import StoreError
from codingbench.schema import TABLES

if TYPE_CHECKING:
    import pandas as pd

RESULT_TABLES: Final = tuple(name for name in TABLES if name not in ("cells", "failures"))
"""The tables that a commit writes before ``cells``."""

DEFAULT_FOLDER: Final = Path("results")
"""Where results go unless the user says otherwise."""

Row = Mapping[str, Any]


class Store:
    """The results folder. Nothing is read or created before a method is called.

    Every method raises :class:`StoreError`, with one line, for what the file system refuses and
    for files that are not what a store holds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

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
            raise self._refused(error) from error
        finally:
            _discard(probe)

    def commit(self, key: str, tables: Mapping[str, "Sequence[Row] | pa.Table"]) -> None:
        """Publish the rows of a finished cell, all five tables or none; replaces an older commit.

        Args:
            key: the cell's key, also in the ``key`` column of every row.
            tables: ``cells``, ``steps``, ``layers``, ``epochs`` and ``predictions``, each with
                exactly the columns of the schema.

        Raises:
            StoreError: the disk is full or refuses; an older commit of the cell is then still there
                unless the refusal came in the middle of the renames.
            ValueError: tables, columns or keys are not those of the schema.
        """
        order = (*RESULT_TABLES, "cells")
        if set(tables) != set(order):
            raise ValueError(f"a commit needs the tables {sorted(order)}, got {sorted(tables)}")
        checked = {name: _uniform(name, key, tables[name]) for name in order}
        if checked["cells"].num_rows != 1:
            raise ValueError(f"cells must have 1 row, got {checked['cells'].num_rows}")
        self._publish(key, checked)
        self._remove("failures", key)

    def record_failure(self, key: str, row: Row) -> None:
        """Note why a cell failed; a later commit of the cell removes the note.

        Raises:
            StoreError: the note cannot be written.
            ValueError: the columns are not those of the schema.
        """
        self._publish(key, {"failures": _uniform("failures", key, [row])})

    def finished(self) -> set[str]:
        """Keys of the finished cells, by listing alone."""
        return self._keys("cells")

    def failed(self) -> set[str]:
        """Keys of the cells that failed and were not finished since, by listing alone."""
        return self._keys("failures") - self.finished()

    def failures(self) -> "pd.DataFrame":
        """One row per failed cell that was not finished since."""
        return self._frame("failures", self.failed())

    def read(self, table: str, keys: Collection[str] | None = None) -> "pd.DataFrame":
        """The rows of all finished cells, or of those among ``keys``, in the order of the keys.

        Parts without a finished cell are left out. A table whose folder is absent is empty.

        Raises:
            StoreError: a part is missing, damaged, or has other columns.
        """
        finished = self.finished()
        return self._frame(table, finished if keys is None else finished & set(keys))

    def _part(self, table: str, key: str) -> Path:
        return self.folder / table / f"{key}.parquet"

    def _keys(self, table: str) -> set[str]:
        return {part.stem for part in (self.folder / table).glob("[!.]*.parquet")}

    def _frame(self, table: str, keys: Collection[str]) -> "pd.DataFrame":
        schema = TABLES[table]
        # Reference tables may be handed on without the large ones.
        present = sorted(keys) if (self.folder / table).is_dir() else []
        parts = [_load(self._part(table, key), schema) for key in present]
        frame: pd.DataFrame = pa.concat_tables([schema.empty_table(), *parts]).to_pandas()
        return frame

    def _publish(self, key: str, tables: Mapping[str, pa.Table]) -> None:
        """Write every table beside its place, then rename them there, in the order given."""
        staged: list[tuple[Path, Path]] = []
        try:
            for name, table in tables.items():
                part = self._part(name, key)
                part.parent.mkdir(parents=True, exist_ok=True)
                # The dot hides it from every reader of the folder, pandas among them.
                temporary = part.with_name(f".{key}-{secrets.token_hex(4)}.tmp")
                staged.append((temporary, part))
                _write_through(temporary, _encode(table))
            if "cells" in tables:
                # Or a crash between the renames would pair the old cell with new rows.
                self._remove("cells", key)
            for temporary, part in staged:
                os.replace(temporary, part)
                _sync_folder(part.parent)
        except OSError as error:
            raise self._refused(error) from error
        finally:
            for temporary, _ in staged:
                _discard(temporary)

    def _remove(self, table: str, key: str) -> None:
        part = self._part(table, key)
        try:
            if part.exists():
                part.unlink(missing_ok=True)
                _sync_folder(part.parent)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> StoreError:
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = "a part of this path is a file, expected a folder"
        return StoreError(f"cannot write the results folder {str(self.folder)!r}: {reason}")


def _uniform(name: str, key: str, rows: "Sequence[Row] | pa.Table") -> pa.Table:
    """The rows as a table of exactly the schema ``name``, refused if columns or keys differ."""
    schema = TABLES[name]
    expected = set(schema.names)
    for columns in [rows.column_names] if isinstance(rows, pa.Table) else rows:
        if set(columns) != expected:
            missing, extra = expected - set(columns), set(columns) - expected
            raise ValueError(f"{name}: missing {sorted(missing)}, unknown {sorted(extra)}")
    if isinstance(rows, pa.Table):
        table = rows.select(schema.names).cast(schema)
    else:
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    keys = set(table.column("key").to_pylist())
    if keys - {key}:
        raise ValueError(f"{name}: expected rows of {key!r}, got {sorted(map(str, keys))}")
    return table


def _encode(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    return sink.getvalue()


def _load(part: Path, schema: pa.Schema) -> pa.Table:
    try:
        with pq.ParquetFile(part, page_checksum_verification=True) as file:
            table = file.read(use_threads=False)  # parts are small: twice as fast
    except FileNotFoundError:
        raise StoreError(f"{str(part)!r} is missing, though its cell is finished") from None
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(f"{str(part)!r} is damaged and cannot be read: {reason}") from error
    differing = sorted({field.name for field in set(table.schema) ^ set(schema)})
    if differing:
        raise StoreError(f"{str(part)!r} has other columns than expected: {', '.join(differing)}")
    return table.select(schema.names)


def _write_through(path: Path, data: pa.Buffer) -> None:
    """Write and wait until the bytes are on the disk."""
    with path.open("wb", buffering=0) as file:
        view = memoryview(data)
        while view:  # an unbuffered write may take only a part
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """A rename survives a power cut only once its folder is on the disk."""
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened, and the rename itself is journalled
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(path: Path) -> None:
    """Remove what may not be there, silently: an error on its way out matters more."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
