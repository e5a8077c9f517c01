"""Merge the results folders of several machines into one.

Two stores have the same result for a cell if all columns are equal except those of provenance
(:data:`codingbench.schema.PROVENANCE`) and those that one of them was too old to know. If the
results differ, both are kept, the second under a new key; the leaderboard takes the newer one and
says so. Rows measured after a cell had finished are merged with it; of two such measurements of the
same result, the later one is kept.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from codingbench.errors import StoreError
from codingbench.plugins import kept
from codingbench.schema import LATER_TABLES, SCHEMA
from codingbench.store.absence import nothing_in
from codingbench.store.equality import WHOLE, Cell, batches, cells_of, differing, result_of
from codingbench.store.folder import RESULT_TABLES, Store
from codingbench.store.parts import by_key, checksum
from codingbench.store.progress import read_grids, write_grid
from codingbench.store.verification import verify


@dataclass(frozen=True)
class Conflict:
    """Two different results of one cell. Both are kept."""

    key: str
    kept_as: str
    """The new key of the second result."""
    source: Store
    columns: tuple[str, ...]
    """The columns that differ, as ``table.column``."""


@dataclass
class Merge:
    """Counts of what a merge added, and the conflicts it found."""

    added: int = 0
    identical: int = 0
    """Cells that the target already had with the same result."""
    failures: int = 0
    """Records of failed cells that were added."""
    conflicts: list[Conflict] = field(default_factory=list)


def merge(sources: Sequence[Store], target: Store) -> Merge:
    """Copy all finished cells and records of failed ones to ``target``, creating it if necessary.

    All parts of the sources are verified first. If the merge is interrupted, every copied cell is
    complete, and the same call continues. Checkpoints of unfinished cells stay where they are.

    Raises:
        StoreError: a source is the target, has no cells or lacks a table; a part is damaged,
            altered or has a newer schema; or another process is running a cell to be merged.
    """
    for source in sources:
        _check_source(source, target)
    target.check_writable()
    done = Merge()
    for source in sources:
        for batch in batches(sorted(source.finished())):
            ours, later = cells_of(target, batch), _later(source, batch)
            for key, cell in cells_of(source, batch).items():
                with target.claim(key) as mine:
                    if not mine:
                        raise StoreError(
                            f"another process is running cell {key} in {_name(target)}: merge later"
                        )
                    if key not in ours and target.is_finished(
                        key
                    ):  # finished since the batch was read
                        ours |= cells_of(target, [key])
                    _merge_cell(source, key, cell, later.get(key, {}), ours.get(key), target, done)
    for source in sources:
        done.failures += _merge_failures(source, target)
        _copy_plugins(source, target)
        for grid in read_grids(source.folder):  # so that the cells that are left are still known
            write_grid(target.folder, grid)
    return done


def _check_source(source: Store, target: Store) -> None:
    if source.folder.resolve() == target.folder.resolve():
        raise StoreError(f"{_name(source)} cannot be merged into itself")
    if not source.finished() and not source.failed():
        raise StoreError(f"{nothing_in(source.folder)}, expected cells to merge")
    bad = verify(source).bad
    if bad:
        raise StoreError(
            f"{_name(source)} has {len(bad)} bad parts; "
            f"the first is {bad[0].path.name}: {bad[0].what}"
        )
    for table in RESULT_TABLES if source.finished() else ():
        if not (source.folder / table).is_dir():
            raise StoreError(f"{_name(source)} has no table {table!r}: its cells are incomplete")


def _later(store: Store, keys: Collection[str]) -> dict[str, Cell]:
    """Return the rows that were measured after the cells had finished, by cell."""
    found: dict[str, Cell] = defaultdict(dict)
    for name in LATER_TABLES:
        for key, rows in by_key(store.read_table(name, keys)).items():
            found[key][name] = rows
    return found


def _merge_cell(
    source: Store,
    key: str,
    cell: Cell,
    later: Cell,
    ours: Cell | None,
    target: Store,
    done: Merge,
) -> None:
    if ours is None:
        target.commit(key, cell | later)
        done.added += 1
        return
    columns = differing(cell, ours)
    if not columns:
        _renew(target, key, later)
        done.identical += 1
        return
    kept_as = _other_key(key, cell)
    done.conflicts.append(Conflict(key, kept_as, source, columns))
    cell, later = (_renamed(tables, kept_as) for tables in (cell, later))
    if target.is_finished(kept_as):  # the stores have been merged before
        _renew(target, kept_as, later)
    else:
        target.commit(kept_as, cell | later)


def _renew(target: Store, key: str, later: Cell) -> None:
    """Add later measurements of a cell that are newer than the target's."""
    for name, rows in later.items():
        ours = target.read_table(name, [key])
        if not ours.num_rows or _last(rows) > _last(ours):
            target.add(key, name, rows)


def _last(rows: pa.Table) -> int:
    """Return the time of the last measurement, or 0 if it is unknown."""
    return pc.max(rows["measured_at"].cast(pa.int64())).as_py() or 0


def _other_key(key: str, cell: Cell) -> str:
    """Return a new key that depends only on the rows, so that merging again finds the same cell."""
    sums = [checksum(result_of(cell[name]), SCHEMA) for name in WHOLE]
    return hashlib.sha256("/".join([key, *sums]).encode()).hexdigest()[:16]


def _renamed(cell: Cell, key: str) -> Cell:
    def renamed(table: pa.Table) -> pa.Table:
        keys = pa.array([key] * table.num_rows, pa.string())
        return table.set_column(table.column_names.index("key"), "key", keys)

    return {name: renamed(table) for name, table in cell.items()}


def _merge_failures(source: Store, target: Store) -> int:
    """Add the records of cells that the target has not finished, if newer than its own."""
    recorded = {row["key"]: row["failed_at"] for row in target.read_table("failures").to_pylist()}
    later = [
        row
        for row in source.read_table("failures").to_pylist()
        if row["key"] not in recorded or row["failed_at"] > recorded[row["key"]]
    ]
    added = [row for row in later if not target.is_finished(row["key"])]
    for row in added:
        target.record_failure(row["key"], row)
    return len(added)


def _copy_plugins(source: Store, target: Store) -> None:
    """Copy the kept sources of plug-ins as data; one that the target has is left as it is."""
    for folder in kept.folders(source.folder):
        try:
            kept.write(kept.read(folder), target.folder / kept.FOLDER / folder.name)
        except OSError as error:
            raise target.refused(error) from error


def _name(store: Store) -> str:
    return repr(str(store.folder))
