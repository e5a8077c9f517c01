"""Name, encode, checksum and read one part: a Parquet file with rows of one table.

The part of one cell is ``<key>.parquet``. A compact part has the rows of many cells, sorted by key,
and is named ``<first key>-<last key>-<random>.parquet``. The metadata hold the schema version and a
SHA-256 of the rows themselves, which does not depend on their encoding.

Parts may come from untrusted sources. Nothing in them is executed, and size, number of rows and
columns are checked before any row is read.
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
"""Metadata field with the SHA-256 of the rows, in hexadecimal digits."""

MOST_BYTES: Final = 2**28
"""Size limit of a part. The largest part written, with 100,000 rows, has a tenth of this."""

MOST_ROWS: Final = 2_000_000
"""Limit of the number of rows that a footer states; a file of a few bytes can state any number."""

_FIRST_WITH_CHECKSUM: Final = 3  # schema version; older parts have no checksum
_GROUP_ROWS: Final = 10_000  # per row group: this many are decoded to find one cell
_KEY: Final = re.compile(r"[0-9a-f]{16}")
_COMPACT: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})-[0-9a-f]{8}\.parquet")


def is_key(text: str) -> bool:
    """Return whether the text is a cell key: 16 hexadecimal digits in lower case."""
    return _KEY.fullmatch(text) is not None


def single_name(key: str) -> str:
    """Return the file name of a cell's single part."""
    return f"{key}.parquet"


def key_of(name: str) -> str | None:
    """Return the key in the file name of a single part, or None for other names."""
    key = name.removesuffix(".parquet")
    return key if key != name and is_key(key) else None


def key_range(name: str) -> tuple[str, str] | None:
    """Return the first and last key in the file name of a compact part, or None for other names."""
    match = _COMPACT.fullmatch(name)
    return (match[1], match[2]) if match else None


def encode(table: pa.Table) -> memoryview:
    """Return the bytes of a part with the rows of ``table``, which has the current columns."""
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
    """Return the SHA-256 of names, types, values and nulls, whatever the chunks and encodings."""
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
    """Read the rows of a part, converted to the current columns.

    Args:
        part: path of the part.
        name: name of the table that it belongs to.
        keys: read the rows of these cells only; None: all rows.
        check: also verify the checksum, which needs all rows. Parts of schema 2 have none.

    Raises:
        FileNotFoundError: the part does not exist.
        StoreError: it is damaged or too large, has other columns or a newer schema.
    """
    where = repr(str(part))
    with _opened(part) as file:
        metadata = file.schema_arrow.metadata or {}
        version = version_of(metadata, where)
        check_columns(file.schema_arrow, name, version, where)
        groups = _groups(file, None if check else keys)
        table = file.read_row_groups(groups, use_threads=len(groups) > 1)
        table.validate(full=True)  # text that is not UTF-8 would cause errors much later
    if check:
        _check_checksum(table, version, metadata.get(CHECKSUM_FIELD), where)
    if own := key_of(part.name):
        if table.num_rows and table["key"].unique().to_pylist() != [own]:
            raise StoreError(f"{where} has rows of other cells than the one in its name")
    elif keys is not None:
        table = table.filter(pc.is_in(table["key"], pa.array(sorted(keys), pa.string())))
    return migrate(table, name, version)


def _check_checksum(table: pa.Table, version: int, recorded: bytes | None, where: str) -> None:
    if version < _FIRST_WITH_CHECKSUM and recorded is None:
        return
    if recorded is None:
        raise StoreError(f"{where} has no checksum: it was not written by codingbench")
    if recorded != checksum(table, version).encode():
        raise StoreError(f"{where} was altered: its rows do not match its checksum")


def keys_in(part: Path) -> frozenset[str]:
    """Return the keys in a part, reading only that column.

    Raises:
        FileNotFoundError: the part does not exist.
        StoreError: it is damaged or too large, or its column ``key`` is missing or has a value that
            is not a key.
    """
    where = repr(str(part))
    with _opened(part, read_dictionary=["key"]) as file:
        if "key" not in file.schema_arrow.names:
            raise StoreError(f"{where} has no column 'key'")
        keys = file.read(["key"])["key"].unique().cast(pa.string())
        for key in keys.filter(_is_not_key(keys)).to_pylist():
            raise StoreError(f"{where} has rows of {str(key)[:40]!r}, which is not a cell key")
        return frozenset(keys.to_pylist())


def _is_not_key(keys: Any) -> Any:
    return pc.invert(pc.fill_null(pc.match_substring_regex(keys, f"^{_KEY.pattern}$"), False))


def num_rows(part: Path) -> int:
    """Return the number of rows of a part, from its footer.

    Raises:
        FileNotFoundError: the part does not exist.
        StoreError: it is damaged or too large.
    """
    with _opened(part) as file:
        return int(file.metadata.num_rows)


def by_key(table: pa.Table) -> dict[str, pa.Table]:
    """Split rows by key, in order of the keys; the rows of each key keep their order."""
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
    """Return whether the rows are sorted by key."""
    keys = table["key"].combine_chunks()
    return bool(pc.all(pc.greater_equal(keys[1:], keys[:-1]), min_count=0).as_py())


@contextmanager
def _opened(part: Path, **options: Any) -> Iterator[Any]:
    """Open a part as a Parquet file, after checking its size; decode nothing."""
    where = repr(str(part))
    try:
        about = part.stat()
        if not stat.S_ISREG(about.st_mode):  # reading a pipe could wait forever
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
    """Return the row groups that may hold rows of ``keys``, by the range of keys of each."""
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
    """Return the rows of one cell as a table with exactly the columns of table ``name``.

    Raises:
        ValueError: ``key`` is not a key, the columns are different, or a row is of another cell.
    """
    schema = TABLES[name]
    expected = set(schema.names)
    if not is_key(key):
        raise ValueError(f"key must be 16 hexadecimal digits in lower case, got {key[:80]!r}")
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
