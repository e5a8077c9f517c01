"""Verify that every part of a store is intact and every finished cell complete."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from codingbench.errors import StoreError
from codingbench.plugins import kept
from codingbench.schema import LATER_TABLES, TABLES
from codingbench.store.absence import check_has_results
from codingbench.store.folder import RESULT_TABLES, Store
from codingbench.store.parts import is_key, is_sorted, key_of, key_range, load

STALE_S: Final = 3600
"""Age in seconds from which a temporary file is taken to be from a process that was killed."""

_TEMPORARY: Final = re.compile(r"\..*-[0-9a-f]{8}\.tmp")


@dataclass(frozen=True)
class Damage:
    """A file and what is wrong with it, in one line."""

    path: Path
    what: str


@dataclass
class VerificationReport:
    """The result of a verification."""

    cells: int
    """Number of finished cells."""
    bad: list[Damage] = field(default_factory=list)
    """Files that are damaged, altered, missing or foreign."""
    notes: list[Damage] = field(default_factory=list)
    """Harmless findings, such as files left by killed processes; no result is affected."""


def verify(store: Store) -> VerificationReport:
    """Read all parts of a store, compare their checksums, and check that no cell lacks a part.

    Raises:
        StoreError: a folder cannot be listed, or the store has none of the tables.
    """
    check_has_results(store.folder)
    report = VerificationReport(cells=0)
    held = {table: _verify_table(store, table, report) for table in TABLES}
    report.cells = len(held["cells"])
    _verify_plugins(store, report)
    for table in RESULT_TABLES:
        _note_missing(store, table, held["cells"], held[table], report)
    for table in (*RESULT_TABLES, *LATER_TABLES):
        _note_unfinished(store, table, held[table] - held["cells"], report)
    return report


def leftovers(store: Store) -> list[Path]:
    """Return the temporary files of writes in progress or of killed processes."""
    folders = [store.folder / table / below for table in TABLES for below in ("", "compact")]
    found = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return sorted(path for path in found if _TEMPORARY.fullmatch(path.name))


def clean(store: Store) -> list[Path]:
    """Remove temporary files older than ``STALE_S`` and return their paths.

    Raises:
        StoreError: a file cannot be removed.
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
    """Verify a table; return the keys of the cells with rows or a part in it, damaged or not."""
    held: set[str] = set()
    for part in _parts(store.folder / table, report):
        keys = _verify_part(part, table, report)
        if key_of(part.name) is None and keys & held:
            what = f"{len(keys & held)} of its cells are also in other parts; compact removes them"
            report.notes.append(Damage(part, what))
        held |= keys
    return held


def _verify_plugins(store: Store, report: VerificationReport) -> None:
    """Compare the kept sources of plug-ins with their hashes; nothing of them is run."""
    for folder in kept.folders(store.folder):
        try:
            kept.read(folder)
        except StoreError as error:
            report.bad.append(Damage(folder, str(error)))


def _parts(folder: Path, report: VerificationReport) -> Iterator[Path]:
    """Yield the single parts, then the compact parts; report all other files."""
    for where, is_part in ((folder, key_of), (folder / "compact", key_range)):
        for path in sorted(where.iterdir()) if where.is_dir() else []:
            if path == folder / "compact" and path.is_dir():
                continue
            if is_part(path.name) is not None:
                yield path
            elif _TEMPORARY.fullmatch(path.name):
                report.notes.append(
                    Damage(path, "temporary file of a write that was killed or is in progress")
                )
            elif not path.name.startswith("."):  # hidden files of the operating system
                report.bad.append(Damage(path, "foreign: not the name of a part"))


def _verify_part(part: Path, table: str, report: VerificationReport) -> set[str]:
    """Verify a part; return its cells, or the one in its name if it cannot be read."""
    own = key_of(part.name)
    named = {own} if own else set()
    try:
        rows = load(part, table, check=True)
    except FileNotFoundError:
        return set()  # compacted meanwhile: its rows are in a compact part, read later
    except StoreError as error:
        what = str(error).removeprefix(repr(str(part))).strip()
        report.bad.append(Damage(part, what))
        return named
    keys = set(map(str, rows["key"].unique().to_pylist()))
    if wrong := _misplaced(part, rows, keys):
        report.bad.append(Damage(part, wrong))
    return keys | named


def _misplaced(part: Path, rows: pa.Table, keys: set[str]) -> str | None:
    """Describe how the keys of a compact part contradict its name, or return None."""
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
            report.notes.append(Damage(folder, "the whole table is missing"))
        return
    lost = [
        key_range(found.path.name) for found in report.bad if found.path.parent.parent == folder
    ]
    for key in sorted(finished - held):
        if not any(bounds and bounds[0] <= key <= bounds[1] for bounds in lost):  # reported already
            what = "missing although its cell is finished"
            report.bad.append(Damage(store.single(table, key), what))


def _note_unfinished(
    store: Store, table: str, unfinished: set[str], report: VerificationReport
) -> None:
    for key in sorted(unfinished & store.singles(table)):
        what = "belongs to a cell that is not finished; readers ignore it"
        report.notes.append(Damage(store.single(table, key), what))
    if others := unfinished - store.singles(table):
        what = f"has rows of {len(others)} cells that are not finished; readers ignore them"
        report.notes.append(Damage(store.folder / table / "compact", what))
