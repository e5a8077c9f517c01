"""Whether every part of a store is what was written, and every finished cell whole."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from codingbench.errors import StoreError
from codingbench.schema import LATER_TABLES, TABLES
from codingbench.store.folder import RESULT_TABLES, Store
from codingbench.store.parts import is_key, is_sorted, key_of, key_range, load

STALE_S: Final = 3600
"""Files of a write in progress that are older are taken to be of a process that was killed."""

_TEMPORARY: Final = re.compile(r"\..*-[0-9a-f]{8}\.tmp")


@dataclass(frozen=True)
class Damage:
    """One file, and what is to be said of it, in one line."""

    path: Path
    what: str


@dataclass
class VerificationReport:
    """What a verification found."""

    cells: int
    """Finished cells."""
    bad: list[Damage] = field(default_factory=list)
    """Damaged, altered, missing or foreign."""
    notes: list[Damage] = field(default_factory=list)
    """What killed processes leave, or who hands on a part of a store; no result is in doubt."""


def verify(store: Store) -> VerificationReport:
    """Read all parts of a store, with their checksums, and see that no cell lacks one.

    Raises:
        StoreError: a folder cannot be listed, or no cell has ever been written there.
    """
    if not any((store.folder / table).is_dir() for table in TABLES):
        raise StoreError(f"{str(store.folder)!r} holds no results: none of the tables is there")
    report = VerificationReport(cells=0)
    held = {table: _verify_table(store, table, report) for table in TABLES}
    report.cells = len(held["cells"])
    for table in RESULT_TABLES:
        _note_missing(store, table, held["cells"], held[table], report)
    for table in (*RESULT_TABLES, *LATER_TABLES):
        _note_unfinished(store, table, held[table] - held["cells"], report)
    return report


def leftovers(store: Store) -> list[Path]:
    """Hidden files that a write makes first, and a killed process leaves."""
    folders = [store.folder / table / below for table in TABLES for below in ("", "compact")]
    found = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return sorted(path for path in found if _TEMPORARY.fullmatch(path.name))


def clean(store: Store) -> list[Path]:
    """Remove the leftovers older than ``STALE_S``; what was removed.

    Raises:
        StoreError: the file system refuses.
    """
    try:
        oldest = time.time() - STALE_S
        stale = [path for path in leftovers(store) if path.stat().st_mtime < oldest]
        for path in stale:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise store.refused(error) from error
    return stale


def _verify_table(store: Store, table: str, report: VerificationReport) -> set[str]:
    """The cells of which a table has rows or a part, damaged or not."""
    held: set[str] = set()
    for part in _parts(store.folder / table, report):
        keys = _verify_part(part, table, report)
        if key_of(part.name) is None and keys & held:
            what = f"{len(keys & held)} of its cells are in other parts too; compact takes them out"
            report.notes.append(Damage(part, what))
        held |= keys
    return held


def _parts(folder: Path, report: VerificationReport) -> Iterator[Path]:
    """The parts of single cells, then the compact ones; all other files are findings."""
    for where, is_part in ((folder, key_of), (folder / "compact", key_range)):
        for path in sorted(where.iterdir()) if where.is_dir() else []:
            if path == folder / "compact" and path.is_dir():
                continue
            if is_part(path.name) is not None:
                yield path
            elif _TEMPORARY.fullmatch(path.name):
                report.notes.append(Damage(path, "left by a write that was killed, or going on"))
            elif not path.name.startswith("."):  # as the system's own files in any folder
                report.bad.append(Damage(path, "foreign: its name is not that of a part"))


def _verify_part(part: Path, table: str, report: VerificationReport) -> set[str]:
    """The cells in a part; by its name if it cannot be read."""
    own = key_of(part.name)
    named = {own} if own else set()
    try:
        rows = load(part, table, check=True)
    except FileNotFoundError:
        return set()  # moved by a compaction meanwhile: it is in a compact part, read later
    except StoreError as error:
        what = str(error).removeprefix(repr(str(part))).strip()
        report.bad.append(Damage(part, what))
        return named
    keys = set(map(str, rows["key"].unique().to_pylist()))
    if wrong := _misplaced(part, rows, keys):
        report.bad.append(Damage(part, wrong))
    return keys | named


def _misplaced(part: Path, rows: pa.Table, keys: set[str]) -> str | None:
    """What a compact part's keys have against its name, if anything."""
    bounds = key_range(part.name)
    if bounds is None:
        return None
    outside = [key for key in keys if not (is_key(key) and bounds[0] <= key <= bounds[1])]
    if outside:
        return f"has rows of {min(outside)[:40]!r}, which its name does not include"
    return None if is_sorted(rows) else "its rows are not in the order of their keys"


def _note_missing(
    store: Store, table: str, finished: set[str], held: set[str], report: VerificationReport
) -> None:
    folder = store.folder / table
    if not folder.is_dir():
        if finished:
            report.notes.append(Damage(folder, "the whole table is not there"))
        return
    lost = [
        key_range(found.path.name) for found in report.bad if found.path.parent.parent == folder
    ]
    for key in sorted(finished - held):
        if not any(bounds and bounds[0] <= key <= bounds[1] for bounds in lost):  # said already
            what = "missing, though its cell is finished"
            report.bad.append(Damage(store.single(table, key), what))


def _note_unfinished(
    store: Store, table: str, unfinished: set[str], report: VerificationReport
) -> None:
    for key in sorted(unfinished & store.singles(table)):
        what = "of a cell that is not finished; no reader looks at it"
        report.notes.append(Damage(store.single(table, key), what))
    if others := unfinished - store.singles(table):
        what = f"rows of {len(others)} cells that are not finished; no reader looks at them"
        report.notes.append(Damage(store.folder / table / "compact", what))
