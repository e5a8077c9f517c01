"""Parts of older schemas, read as if they had been written with the columns of today.

Every part says in its metadata which schema it was written with. A step of ``_STEPS`` leads from
one version to the next; parts on disk are never rewritten for it, but by compaction.
"""

from collections.abc import Callable, Mapping
from typing import Final

import pyarrow as pa

from codingbench.errors import StoreError
from codingbench.schema import COUNTS, SCHEMA, TABLES

SCHEMA_FIELD: Final = b"codingbench.schema"
"""Where a part's metadata say its schema version."""

_OLDEST: Final = 2  # has no version in its parts


def version_of(metadata: Mapping[bytes, bytes] | None, where: str) -> int:
    """The schema version that a part's metadata name; 2 if they name none.

    Raises:
        StoreError: it is no version, or one that this codingbench does not know.
    """
    text = (metadata or {}).get(SCHEMA_FIELD)
    if text is None:
        return _OLDEST
    if not text.isdigit() or int(text[:9]) < _OLDEST:
        raise StoreError(f"{where} names no schema version: {text[:40]!r}")
    if int(text[:9]) > SCHEMA:
        raise StoreError(
            f"{where} is of schema {int(text[:9])}, this codingbench reads schemas up to {SCHEMA}: "
            "update codingbench"
        )
    return int(text)


def check_columns(schema: pa.Schema, name: str, version: int, where: str) -> None:
    """Refuse a part that has not exactly the columns of table ``name`` in schema ``version``.

    Raises:
        StoreError: names the columns, or codingbench 0.1.0 if its columns these are.
    """
    given, expected = _types(schema), _types(_expected(name, version))
    if given == expected and len(given) == len(schema):
        return
    missing = expected.keys() - given.keys()
    if version == _OLDEST and missing and missing <= set(COUNTS) and not given.keys() - expected:
        raise StoreError(
            f"{where} was written by codingbench 0.1.0, which counted less: run its cells anew, "
            "into another results folder"
        )
    twice = {column for column in given if schema.names.count(column) > 1}
    differing = sorted({column for column, _ in given.items() ^ expected.items()} | twice)
    raise StoreError(f"{where} has other columns than expected: {', '.join(differing)}")


def migrate(table: pa.Table, name: str, version: int) -> pa.Table:
    """The rows of table ``name``, written with schema ``version``, in today's columns.

    Schema 2 to 3: ``micro_batch`` is ``batch_size``, ``neuron_backend`` is ``eager``, what else
    was not recorded is null. Schema 3 to 4: ``devices`` is 1; older stores lack a table.
    """
    for step in range(version, SCHEMA):
        table = _STEPS[step](table)
    schema = TABLES[name]
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).replace_schema_metadata(None)


def _to_3(table: pa.Table) -> pa.Table:
    if "batch_size" in table.column_names:
        table = table.append_column("micro_batch", table["batch_size"])
    if "device_name" in table.column_names:
        eager = pa.array(["eager"] * table.num_rows, pa.string())
        table = table.append_column("neuron_backend", eager)
    return table


def _to_4(table: pa.Table) -> pa.Table:
    if "device_name" in table.column_names:
        one = pa.array([1] * table.num_rows, pa.int64())
        table = table.append_column("devices", one)
    return table


_STEPS: Final[dict[int, Callable[[pa.Table], pa.Table]]] = {2: _to_3, 3: _to_4}

_ADDED: Final = {
    3: {
        "micro_batch",
        "neuron_backend",
        "threads",
        "deterministic",
        "cuda_version",
        "cudnn_version",
        "host",
        "config_hash",
    },
    4: {"devices"},
}
"""Schema version -> the columns it added."""


def _expected(name: str, version: int) -> pa.Schema:
    later = {column for since, added in _ADDED.items() if since > version for column in added}
    return pa.schema([field for field in TABLES[name] if field.name not in later])


def _types(schema: pa.Schema) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in schema}
