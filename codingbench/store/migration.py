"""Convert the rows of parts with older schemas to the current columns.

The metadata of a part name the schema version it was written with. Each function in ``_STEPS``
converts rows from one version to the next. Files on disk are only rewritten by compaction.
"""

from collections.abc import Callable, Mapping
from typing import Final

import pyarrow as pa

from codingbench.energy import DEFAULT_PRICING
from codingbench.errors import StoreError
from codingbench.registry import DEFAULT_NEURON
from codingbench.schema import COUNTS, SCHEMA, TABLES, VALUE_CLASSES

SCHEMA_FIELD: Final = b"codingbench.schema"
"""Metadata field with the schema version."""

_OLDEST: Final = 2  # parts of this version do not state it


def version_of(metadata: Mapping[bytes, bytes] | None, where: str) -> int:
    """Return the schema version in a part's metadata, or 2 if there is none.

    Raises:
        StoreError: the version is not a number, or this codingbench is too old for it.
    """
    text = (metadata or {}).get(SCHEMA_FIELD)
    if text is None:
        return _OLDEST
    if not text.isdigit() or int(text[:9]) < _OLDEST:
        raise StoreError(
            f"{where} has the schema version {text[:40]!r}, expected a number of at least 2"
        )
    if int(text[:9]) > SCHEMA:
        raise StoreError(
            f"{where} has schema {int(text[:9])}, but this codingbench reads schemas up to "
            f"{SCHEMA}: update codingbench"
        )
    return int(text)


def check_columns(schema: pa.Schema, name: str, version: int, where: str) -> None:
    """Check that a part has exactly the columns of table ``name`` in schema ``version``.

    Raises:
        StoreError: it has other columns. The message names them, or says that codingbench 0.1.0
            wrote the part.
    """
    given, expected = _types(schema), _types(_expected(name, version))
    if given == expected and len(given) == len(schema):
        return
    missing = expected.keys() - given.keys()
    if version == _OLDEST and missing and missing <= set(COUNTS) and not given.keys() - expected:
        raise StoreError(
            f"{where} was written by codingbench 0.1.0, which counted less: run its cells again "
            "with another results folder"
        )
    twice = {column for column in given if schema.names.count(column) > 1}
    differing = sorted({column for column, _ in given.items() ^ expected.items()} | twice)
    raise StoreError(f"{where} has other columns than expected: {', '.join(differing)}")


def migrate(table: pa.Table, name: str, version: int) -> pa.Table:
    """Convert rows of table ``name`` from schema ``version`` to the current columns.

    From schema 2 to 3, ``micro_batch`` becomes ``batch_size`` and ``neuron_backend`` becomes
    ``eager``. From 3 to 4, ``devices`` becomes 1. From 4 to 5, ``evaluated_weights`` becomes
    ``last``. From 5 to 6, ``code_channels`` becomes 1, ``neuron`` becomes ``default``, and
    ``energy_exact_uj`` is computed anew, because it includes gates. Other columns that were not
    recorded are null; some are derived from other tables by
    :func:`codingbench.store.learning.read_cells` and :func:`codingbench.store.plausible.read`.
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


def _to_5(table: pa.Table) -> pa.Table:
    if "selected_epoch" in table.column_names:
        last = pa.array(["last"] * table.num_rows, pa.string())
        table = table.append_column("evaluated_weights", last)
    return table


def _to_6(table: pa.Table) -> pa.Table:
    if "backbone" in table.column_names:
        own = pa.array([DEFAULT_NEURON] * table.num_rows, pa.string())
        table = table.append_column("neuron", own)
    if "encoder_parameters" in table.column_names:
        one = pa.array([1] * table.num_rows, pa.int64())
        table = table.append_column("code_channels", one)
    if "energy_exact_uj" not in table.column_names or not table.num_rows:
        return table
    names = ["key", "step", "images", *(f"effective_{c}" for c in VALUE_CLASSES), "gate_muls"]
    steps = table.select(names).to_pandas().sort_values(["key", "step"])
    so_far = steps[names[3:]].groupby(steps["key"]).cumsum().assign(images=steps["images"])
    energies = DEFAULT_PRICING.energy_uj(so_far).sort_index()
    place = table.column_names.index("energy_exact_uj")
    return table.set_column(place, "energy_exact_uj", pa.array(energies, pa.float64()))


_STEPS: Final[dict[int, Callable[[pa.Table], pa.Table]]] = {
    2: _to_3,
    3: _to_4,
    4: _to_5,
    5: _to_6,
}

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
    5: {
        "evaluated_weights",
        "silent_layers",
        "largest_class_share",
        "loss_drop",
        "test_accuracy",
    },
    6: {
        "neuron",
        "neuron_code",
        "code_channels",
        "encoder_spikes",
        "encoder_neurons",
        "lemaire_acs",
        "lemaire_macs",
        "lemaire_memory_pj",
    },
}
"""Schema version -> the columns it added."""

ADDED: Final = frozenset(name for columns in _ADDED.values() for name in columns)
"""Columns that are null where an earlier version could not know them."""


def _expected(name: str, version: int) -> pa.Schema:
    later = {column for since, added in _ADDED.items() if since > version for column in added}
    return pa.schema([field for field in TABLES[name] if field.name not in later])


def _types(schema: pa.Schema) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in schema}
