"""Combine many single parts into few compact parts, while other processes read and write.

Tables are compacted one after another, some cells at a time, under the store's lock. New compact
parts are published first; then the compact parts they replace are removed, then the single parts.
If the process is killed in between, some cells exist twice with the same rows. Readers use one of
the two, and the next compaction removes the other. No cell is ever missing.
"""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

import pyarrow as pa

from codingbench.schema import TABLES
from codingbench.store.durable import discard, sync_folder, temporary_beside, write_through
from codingbench.store.folder import Store
from codingbench.store.parts import by_key, encode, load, num_rows

PART_ROWS: Final = 100_000
"""Largest number of rows in a compact part, unless a single cell has more."""

_CELLS_AT_ONCE: Final = 1_000  # per lock, so that writers wait a few seconds at most


@dataclass(frozen=True)
class Compaction:
    """Counts of a compaction."""

    gathered: int
    """Number of single parts, over all tables, that are now in compact parts."""
    parts: int
    """Number of compact parts there are now, over all tables."""


def compact(store: Store) -> Compaction:
    """Combine the single parts of finished cells and records of failed ones into compact parts.

    Rows of older schemas are converted to the current columns. Single parts of unfinished cells
    are left alone; rows of unfinished cells are removed from compact parts.

    Raises:
        StoreError: a part is damaged or altered, or the folder cannot be written.
    """
    gathered = 0
    for table in TABLES:
        while (moved := _gather(store, table)) is not None:
            gathered += moved
    return Compaction(gathered, sum(len(store.compacts(table)) for table in TABLES))


def _gather(store: Store, table: str) -> int | None:
    """Compact some cells of a table; return how many, or None if there was nothing to do."""
    if not (store.singles(table) or store.compacts(table)):
        return None
    with store.alone():
        kept = store.shown(table)
        single = _some(store, table, kept)
        replaced = _to_replace(store, table, kept, single)
        if not single and not replaced:
            return None
        pieces = [*single.values(), *_others(store, table, replaced, kept - single.keys())]
        rows = pa.concat_tables([TABLES[table].empty_table(), *pieces])
        _publish(store.folder / table / "compact", rows)
        for part in [*replaced, *(store.single(table, key) for key in single)]:
            part.unlink()
        for folder in {store.folder / table, store.folder / table / "compact"}:
            sync_folder(folder)
    return len(single)


def _some(store: Store, table: str, kept: Collection[str]) -> dict[str, pa.Table]:
    """Return the first cells, in order of keys, with single parts: about one compact part full."""
    chosen: dict[str, pa.Table] = {}
    rows = 0
    for key in sorted(store.singles(table) & set(kept)):
        part = load(store.single(table, key), table, check=True)
        if part.num_rows:  # a cell without rows needs its single part to exist
            chosen[key] = part
            rows += part.num_rows
        if rows >= PART_ROWS or len(chosen) == _CELLS_AT_ONCE:
            break
    return chosen


def _to_replace(
    store: Store, table: str, kept: Collection[str], single: Collection[str]
) -> list[Path]:
    """Return the compact parts with outdated rows, and those less than half full."""
    replaced, seen = [], set(single)
    for part in store.compacts(table):
        keys = store.keys_of(part)
        is_small = bool(single) and num_rows(part) < PART_ROWS // 2
        if is_small or keys & seen or not keys <= set(kept):
            replaced.append(part)
        seen |= keys
    return replaced


def _others(store: Store, table: str, replaced: list[Path], wanted: set[str]) -> Iterator[pa.Table]:
    """Yield the rows of the replaced parts that are still wanted, those of each cell once."""
    for part in replaced:
        held = store.keys_of(part) & wanted
        wanted -= held
        yield load(part, table, held, check=True)


def _publish(folder: Path, rows: pa.Table) -> None:
    """Write the cells in order of their keys, as many to a part as fit."""
    folder.mkdir(exist_ok=True)
    staged: list[tuple[Path, Path]] = []
    try:
        for cells in _grouped(by_key(rows)):
            keys = sorted(cells)
            part = folder / f"{keys[0]}-{keys[-1]}-{token_hex(4)}.parquet"
            temporary = temporary_beside(part)
            staged.append((temporary, part))
            write_through(temporary, encode(pa.concat_tables(cells.values())))
        for temporary, part in staged:
            os.replace(temporary, part)
        sync_folder(folder)
    finally:
        for temporary, _ in staged:
            discard(temporary)


def _grouped(cells: dict[str, pa.Table]) -> Iterator[dict[str, pa.Table]]:
    """Split the cells into groups of at most ``PART_ROWS`` rows, or of one cell."""
    part: dict[str, pa.Table] = {}
    rows = 0
    for key, table in cells.items():
        if part and rows + table.num_rows > PART_ROWS:
            yield part
            part, rows = {}, 0
        part[key] = table
        rows += table.num_rows
    if part:
        yield part
