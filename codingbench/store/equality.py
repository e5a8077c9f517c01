"""Compare the results of one cell in two stores, and all the cells of two stores.

Two results are the same if all columns are equal except those of provenance
(:data:`codingbench.schema.PROVENANCE`).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from codingbench.schema import PROVENANCE, TABLES
from codingbench.store.folder import RESULT_TABLES, Store
from codingbench.store.migration import ADDED
from codingbench.store.parts import by_key

WHOLE: Final = (*RESULT_TABLES, "cells")
"""The tables that hold the result of a cell."""

BATCH: Final = 100
"""Cells that are in memory at once."""

Cell = dict[str, pa.Table]
"""The rows of one cell, by table."""


@dataclass(frozen=True)
class Difference:
    """The cells of two stores, by key."""

    first_only: Sequence[str]
    second_only: Sequence[str]
    equal: Sequence[str]
    """In both, with the same result."""
    differing: dict[str, tuple[str, ...]]
    """In both, with different results: the columns that differ, as ``table.column``."""


def difference(a: Store, b: Store) -> Difference:
    """Compare the finished cells of two stores.

    A table of results that one of the stores lacks altogether is not compared.

    Raises:
        StoreError: a store cannot be read.
    """
    ours, theirs = a.finished(), b.finished()
    tables = [name for name in WHOLE if all(store.has_table(name) for store in (a, b))]
    columns: dict[str, tuple[str, ...]] = {}
    for batch in batches(sorted(ours & theirs)):
        first, second = (cells_of(store, batch, tables) for store in (a, b))
        columns |= {key: differing(first[key], second[key]) for key in batch}
    return Difference(
        sorted(ours - theirs),
        sorted(theirs - ours),
        [key for key, found in columns.items() if not found],
        {key: found for key, found in columns.items() if found},
    )


def batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the keys in pieces of at most ``BATCH``."""
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]


def cells_of(
    store: Store, keys: Collection[str], names: Collection[str] = WHOLE
) -> dict[str, Cell]:
    """Return the rows of those cells that are finished, of these tables (``cells`` is one)."""
    tables = {name: by_key(store.read_table(name, keys)) for name in names}
    return {
        key: {name: tables[name].get(key, TABLES[name].empty_table()) for name in names}
        for key in tables["cells"]
    }


def differing(a: Cell, b: Cell) -> tuple[str, ...]:
    """Return the columns of two results that differ, as ``table.column``."""
    return tuple(
        f"{name}.{column}"
        for name in a
        for column in result_of(a[name]).column_names
        if not a[name][column].equals(b[name][column])
        and not (column in ADDED and any(_is_unknown(cell[name][column]) for cell in (a, b)))
    )


def _is_unknown(values: pa.ChunkedArray) -> bool:
    """Return whether an earlier version, which had no such column, wrote the rows."""
    return bool(values.null_count == len(values))


def result_of(table: pa.Table) -> pa.Table:
    """Return the table without the columns of provenance."""
    return table.select([name for name in table.column_names if name not in PROVENANCE])
