"""One part: a Parquet file with rows of one table, its name, its checksum, how it is read.

The part of one cell is ``<key>.parquet``; one that compaction gathered from many is
``<first key>-<last key>-<random>.parquet``, its rows sorted by key. The metadata hold the schema
version and a SHA-256 of the rows themselves, so it is the same however they are encoded.

Parts may come from strangers. Nothing in them is executed; size, rows and columns are checked
before rows are read.
"""

import hashlib
import itertools
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from codingbench.errors import StoreError
from codingbench.schema import SCHEMA, TABLES
from codingbench.store.migration import SCHEMA_FIELD, check_columns, migrate, version_of

CHECKSUM_FIELD: Final = b"codingbench.sha256"
"""Where a part's metadata have the SHA-256 of its rows, in hexadecimal digits."""

MOST_BYTES: Final = 2**28
"""A larger part is refused unread. The largest one written, of 100,000 rows, has a tenth."""

MOST_ROWS: Final = 2_000_000
"""A part that claims more rows is refused: a file of a few bytes can claim any number."""

_SUMMED_SINCE: Final = 3  # parts of older schemas have no checksum
_GROUP_ROWS: Final = 10_000  # of a row group, what is decoded to find one cell in a compact part
_KEY: Final = re.compile(r"[0-9a-f]{16}")
_COMPACT: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})-[0-9a-f]{8}\.parquet")


def is_key(text: str) -> bool:
    """Whether it is a cell's key: 16 hexadecimal digits, in lower case."""
    return _KEY.fullmatch(text) is not None


def single_name(key: str) -> str:
    """The name of the part of one cell."""
    return f"{key}.parquet"


def key_of(name: str) -> str | None:
    """The key in the name of a part of one cell; None if it is not such a name."""
    key = name.removesuffix(".parquet")
    return key if key != name and is_key(key) else None


def key_range(name: str) -> tuple[str, str] | None:
    """The first and last key in the name of a compact part; None if it is not such a name."""
    match = _COMPACT.fullmatch(name)
    return (match[1], match[2]) if match else None


def encode(table: pa.Table) -> memoryview:
    """The bytes of a part. ``table`` has today's columns."""
    fields = {SCHEMA_FIELD: b"%d" % SCHEMA, CHECKSUM_FIELD: checksum(table, SCHEMA).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(fields),
        sink,
        row_group_size=_GROUP_ROWS,
        write_page_checksum=True,
    )
    return memoryview(sink.getvalue())


def checksum(table: pa.Table, version: int) -> str:
    """SHA-256 of names, types, values and nulls; chunks and encodings do not matter."""
    digest = hashlib.sha256(b"%d %d" % (version, table.num_rows))
    for field in table.schema:
        digest.update(f"\n{field.name} {field.type}\n".encode())
        for data in _content(table[field.name].combine_chunks()):
            digest.update(data)
    return digest.hexdigest()


def _content(column: Any) -> Iterator[Any]:
    if column.null_count:
        yield np.packbits(column.is_valid().to_numpy(zero_copy_only=False))
    if pa.types.is_string(column.type):
        texts = column.fill_null("")
        yield pc.binary_length(texts).to_numpy()
        everything = pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts)
        yield pc.binary_join(everything, "")[0].as_buffer()
        return
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    zero = False if pa.types.is_boolean(column.type) else 0
    values = column.fill_null(zero).to_numpy(zero_copy_only=False)
    yield np.ascontiguousarray(values, values.dtype.newbyteorder("<"))


def load(
    part: Path, name: str, keys: Collection[str] | None = None, *, check: bool = False
) -> pa.Table:
    """The rows of a part of table ``name`` in today's columns, or those of ``keys`` among them.

    Args:
        check: compare the checksum as well, which needs all rows; parts of schema 2 have none.

    Raises:
        FileNotFoundError: it is not there.
        StoreError: it is damaged, too large, of other columns, or of a newer schema.
    """
    where = repr(str(part))
    with _opened(part) as file:
        metadata = file.schema_arrow.metadata or {}
        version = version_of(metadata, where)
        check_columns(file.schema_arrow, name, version, where)
        groups = _groups(file, None if check else keys)
        table = file.read_row_groups(groups, use_threads=len(groups) > 1)
        table.validate(full=True)  # a text that is not UTF-8 would fail far from here
    if check:
        _check_checksum(table, version, metadata.get(CHECKSUM_FIELD), where)
    if own := key_of(part.name):
        if table.num_rows and table["key"].unique().to_pylist() != [own]:
            raise StoreError(f"{where} has rows of other cells than the one it is named after")
    elif keys is not None:
        table = table.filter(pc.is_in(table["key"], pa.array(sorted(keys), pa.string())))
    return migrate(table, name, version)


def _check_checksum(table: pa.Table, version: int, recorded: bytes | None, where: str) -> None:
    if version < _SUMMED_SINCE and recorded is None:
        return
    if recorded is None:
        raise StoreError(f"{where} has no checksum: it was written by another program")
    if recorded != checksum(table, version).encode():
        raise StoreError(f"{where} was altered: its rows do not have the checksum it was given")


def keys_in(part: Path) -> frozenset[str]:
    """The keys of the rows of a part, by reading that column alone.

    Raises:
        FileNotFoundError: it is not there.
        StoreError: it is damaged or too large, or has no such column, or what is no key in it.
    """
    where = repr(str(part))
    with _opened(part, read_dictionary=["key"]) as file:
        if "key" not in file.schema_arrow.names:
            raise StoreError(f"{where} has no column 'key'")
        keys = file.read(["key"])["key"].unique().cast(pa.string())
        for key in keys.filter(_is_no_key(keys)).to_pylist():
            raise StoreError(f"{where} has rows of {str(key)[:40]!r}, which is no key")
        return frozenset(keys.to_pylist())


def _is_no_key(keys: Any) -> Any:
    return pc.invert(pc.fill_null(pc.match_substring_regex(keys, f"^{_KEY.pattern}$"), False))


def num_rows(part: Path) -> int:
    """Rows of a part, from its footer.

    Raises:
        FileNotFoundError: it is not there.
        StoreError: it is damaged or too large.
    """
    with _opened(part) as file:
        return int(file.metadata.num_rows)


def by_key(table: pa.Table) -> dict[str, pa.Table]:
    """The rows of each key, in the order of the keys; each key's own rows keep their order."""
    keys = table["key"].combine_chunks()
    if not len(keys):
        return {}
    if not is_sorted(table):
        table = table.take(pc.sort_indices(keys))
        keys = table["key"].combine_chunks()
    changes = np.flatnonzero(pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)) + 1
    bounds = [0, *changes.tolist(), len(keys)]
    return {
        keys[start].as_py(): table.slice(start, stop - start)
        for start, stop in itertools.pairwise(bounds)
    }


def is_sorted(table: pa.Table) -> bool:
    """Whether the rows are in the order of their keys."""
    keys = table["key"].combine_chunks()
    return bool(pc.all(pc.greater_equal(keys[1:], keys[:-1]), min_count=0).as_py())


@contextmanager
def _opened(part: Path, **options: Any) -> Iterator[Any]:
    """A part as an open Parquet file, refused by size before any of it is decoded."""
    where = repr(str(part))
    try:
        about = part.stat()
        if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for without end
            raise StoreError(f"{where} is not a file")
        if about.st_size > MOST_BYTES:
            size = f"{about.st_size:,} bytes, expected at most {MOST_BYTES:,}"
            raise StoreError(f"{where} has {size}")
        with pq.ParquetFile(part, page_checksum_verification=True, **options) as file:
            rows = file.metadata.num_rows
            if rows > MOST_ROWS:
                raise StoreError(f"{where} has {rows:,} rows, expected at most {MOST_ROWS:,}")
            yield file
    except FileNotFoundError:
        raise
    except (OSError, KeyError, UnicodeDecodeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"{where} is damaged and cannot be read: {reason}") from error


def _groups(file: Any, keys: Collection[str] | None) -> list[int]:
    """The row groups that may hold rows of ``keys``, by the least and greatest key of each."""
    every = range(file.num_row_groups)
    if keys is None or not keys:
        return list(every) if keys is None else []
    wanted = np.array(sorted(keys))
    position = file.schema_arrow.names.index("key")

    def may_hold(group: int) -> bool:
        statistics = file.metadata.row_group(group).column(position).statistics
        if statistics is None or not statistics.has_min_max:
            return True
        first, last = np.searchsorted(wanted, [statistics.min, statistics.max])
        return bool(first < last or (first < len(wanted) and wanted[first] == statistics.max))

    return [group for group in every if may_hold(group)]


def uniform(name: str, key: str, rows: "Sequence[Mapping[str, Any]] | pa.Table") -> pa.Table:
    """Rows of one cell as a table of exactly the schema ``name``.

    Raises:
        ValueError: ``key`` is not a key, the columns are others, or a row is of another cell.
    """
    schema = TABLES[name]
    expected = set(schema.names)
    if not is_key(key):
        raise ValueError(f"a key is 16 hexadecimal digits in lower case, got {key[:80]!r}")
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
