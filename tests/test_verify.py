import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from codingbench.cli import stores
from codingbench.errors import StoreError
from codingbench.schema import SCHEMA
from codingbench.store.compaction import compact
from codingbench.store.folder import RESULT_TABLES, Store
from codingbench.store.verification import clean, verify

A, B = "aaaa" * 4, "bbbb" * 4
REFERENCE = Path(__file__).parents[1] / "results" / "reference"


@pytest.fixture
def store(tmp_path: Path, row_of: Callable[..., dict[str, Any]]) -> Store:
    """Make a store with two finished cells."""
    store = Store(tmp_path)
    for key in (A, B):
        names = (*RESULT_TABLES, "cells")
        store.commit(
            key, {name: [row_of(name, key=key)] * (name != "cells" or 1) for name in names}
        )
    return store


@pytest.fixture(params=["single", "compact"])
def part(request: pytest.FixtureRequest, store: Store) -> Path:
    """Return a part of ``steps``, single or compact."""
    if request.param == "single":
        return store.single("steps", A)
    compact(store)
    return store.compacts("steps")[0]


def only_finding(store: Store) -> tuple[Path, str]:
    (finding,) = verify(store).bad
    assert "\n" not in finding.what
    return finding.path, finding.what


def alter(part: Path, column: str, values: Any) -> None:
    """Change a column but keep the metadata, as somebody who forges results would."""
    table = pq.read_table(part, partitioning=None)
    position = table.column_names.index(column)
    pq.write_table(table.set_column(position, table.schema.field(position), values(table)), part)


def test_a_store_as_written_is_sound(store: Store) -> None:
    report = verify(store)
    assert (report.cells, report.bad, report.notes) == (2, [], [])
    compact(store)
    report = verify(store)
    assert (report.cells, report.bad, report.notes) == (2, [], [])


@pytest.mark.parametrize("name", ["fashion_mini", "cifar100"])
def test_the_reference_runs_are_sound(name: str) -> None:
    report = verify(Store(REFERENCE / name))
    assert report.cells > 0 and report.bad == [] and report.notes == []


def test_a_value_that_was_changed_is_found(store: Store, part: Path) -> None:
    alter(part, "accuracy", lambda table: pc.add(table["accuracy"], 1e-16 + 0.1))
    what = "was altered: its rows do not match its checksum"
    assert only_finding(store) == (part, what)
    assert Store(store.folder).read("steps")["accuracy"].notna().all()


def test_a_value_that_was_removed_is_found(store: Store, part: Path) -> None:
    alter(part, "accuracy", lambda table: pa.nulls(table.num_rows, pa.float64()))
    assert only_finding(store)[1].startswith("was altered")


def test_rows_that_were_doubled_are_found(store: Store, part: Path) -> None:
    table = pq.read_table(part, partitioning=None)
    pq.write_table(pa.concat_tables([table, table]), part)
    assert only_finding(store)[1].startswith("was altered")


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_truncated_part_is_found(store: Store, part: Path, kept: int) -> None:
    part.write_bytes(part.read_bytes()[:kept])
    path, what = next((found.path, found.what) for found in verify(store).bad)
    assert path == part and what.startswith("is damaged and cannot be read")


def test_a_part_that_another_program_wrote_anew_is_found(store: Store, part: Path) -> None:
    table = pq.read_table(part, partitioning=None)
    pq.write_table(table.replace_schema_metadata({"codingbench.schema": str(SCHEMA)}), part)
    assert only_finding(store) == (part, "has no checksum: it was not written by codingbench")


def test_a_missing_part_is_named(store: Store) -> None:
    store.single("layers", B).unlink()
    expected = store.single("layers", B), "missing although its cell is finished"
    assert only_finding(store) == expected


def test_a_table_that_was_not_handed_on_is_no_error(store: Store) -> None:
    shutil.rmtree(store.folder / "predictions")
    report = verify(store)
    assert report.bad == []
    assert [found.what for found in report.notes] == ["the whole table is missing"]


@pytest.mark.parametrize("name", ["notes.txt", "..parquet", "AAAA" * 4 + ".parquet", "é\n.parquet"])
def test_foreign_files_are_named(store: Store, name: str) -> None:
    path = store.folder / "epochs" / name.lstrip(".")
    path.write_bytes(b"x")
    assert only_finding(store) == (path, "foreign: not the name of a part")


def test_rows_that_a_compact_part_must_not_have_are_named(store: Store) -> None:
    compact(store)
    (part,) = store.compacts("steps")
    moved = part.rename(part.with_name(f"{B}-{B}-01234567.parquet"))
    assert only_finding(store) == (moved, f"has rows of '{A}', which its name does not include")


def test_the_command_names_each_bad_part_and_leaves_with_1(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    stores.verify(store.folder)
    assert capsys.readouterr().out == "2 cells, all files intact\n"
    os.truncate(part := store.single("steps", A), 50)
    (store.folder / "epochs" / "notes.txt").touch()
    with pytest.raises(SystemExit) as left:
        stores.verify(store.folder)
    damaged, foreign, summary = capsys.readouterr().out.splitlines()
    assert left.value.code == 1 and summary == "2 cells, 2 bad files"
    assert damaged.startswith(f"{part}: is damaged and cannot be read")
    assert foreign.endswith("notes.txt: foreign: not the name of a part")


def test_the_command_cleans_when_asked(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (left := store.folder / "steps" / f".{A}-01234567.tmp").touch()
    os.utime(left, (time.time() - 4000,) * 2)
    stores.verify(store.folder, clean=False)
    assert f"{left}: temporary file of a write that was killed" in capsys.readouterr().out
    stores.verify(store.folder, clean=True)
    assert capsys.readouterr().out == f"{left}: removed\n2 cells, all files intact\n"


def test_parts_of_an_unfinished_cell_are_noted(store: Store) -> None:
    store.single("cells", B).unlink()
    report = verify(store)
    assert report.cells == 1 and report.bad == []
    assert {found.path for found in report.notes} == {store.single(t, B) for t in RESULT_TABLES}


def test_what_killed_writes_left_is_noted_and_removed_when_old(store: Store) -> None:
    new, old = (store.folder / "steps" / f".{A}-0123456{n}.tmp" for n in (1, 2))
    own = store.folder / "steps" / ".hidden"
    for path in (new, old, own):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    assert [found.path for found in verify(store).notes] == [new, old]
    assert clean(store) == [old]
    assert new.exists() and own.exists() and not old.exists()


def test_a_folder_without_tables_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no finished cell in"):
        verify(Store(tmp_path))
