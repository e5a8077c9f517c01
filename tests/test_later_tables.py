"""Tables measured after a cell is finished (robustness): kept through all operations on stores."""

import datetime
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from codingbench.errors import StoreError
from codingbench.store.compaction import compact
from codingbench.store.folder import RESULT_TABLES, Store
from codingbench.store.merging import merge
from codingbench.store.verification import verify

A, B, C = "aaaa" * 4, "bbbb" * 4, "cccc" * 4
TABLE = "robustness"
REFERENCE = Path(__file__).parents[1] / "results" / "reference" / "fashion_mini"
Fill = Callable[..., None]


@pytest.fixture
def commit(row_of: Callable[..., dict[str, Any]]) -> Fill:
    """Return a function (store, key, ...) that adds a finished cell."""

    def commit(store: Store, key: str, **values: Any) -> None:
        cell = {name: [row_of(name, key=key)] for name in (*RESULT_TABLES, "cells")}
        cell["cells"][0] |= values
        store.commit(key, cell)

    return commit


@pytest.fixture
def add(row_of: Callable[..., dict[str, Any]]) -> Fill:
    """Return a function (store, key, accuracy, day) that adds two rows of robustness."""

    def add(store: Store, key: str, accuracy: float = 0.5, day: int = 1) -> None:
        when = datetime.datetime(2026, 1, day, tzinfo=datetime.UTC)
        store.add(
            key,
            TABLE,
            [
                row_of(TABLE, key=key, attack=attack, accuracy=accuracy, measured_at=when)
                for attack in ("clean", "pgd")
            ],
        )

    return add


@pytest.fixture
def store(tmp_path: Path, commit: Fill) -> Store:
    store = Store(tmp_path / "store")
    for key in (A, B):
        commit(store, key)
    return store


def accuracies(store: Store) -> dict[str, list[float]]:
    rows = Store(store.folder).read(TABLE)
    return {str(key): of["accuracy"].tolist() for key, of in rows.groupby("key")}


def test_a_finished_cell_may_have_no_rows_or_get_them_or_replace_them(
    store: Store, add: Fill
) -> None:
    assert store.read(TABLE).empty
    add(store, B, 0.25)
    assert accuracies(store) == {B: [0.25, 0.25]}
    add(store, B, 0.75)
    assert accuracies(store) == {B: [0.75, 0.75]} and store.finished() == {A, B}


def test_only_finished_cells_and_later_tables_accept_rows(store: Store, add: Fill) -> None:
    with pytest.raises(StoreError, match=f"no finished cell '{C}'"):
        add(store, C)
    with pytest.raises(ValueError, match="table must be one of"):
        store.add(A, "steps", [])


def test_a_store_from_before_the_table_existed_reads_as_empty(tmp_path: Path) -> None:
    assert Store(REFERENCE).read(TABLE).empty and len(Store(REFERENCE).finished()) == 12


@pytest.mark.parametrize("is_compact", [False, True])
def test_a_cell_that_is_run_again_loses_its_rows(
    store: Store, commit: Fill, add: Fill, is_compact: bool
) -> None:
    for key in (A, B):
        add(store, key)
    if is_compact:
        compact(store)
    commit(store, A)
    assert set(accuracies(store)) == {B}
    compact(store)
    assert set(accuracies(store)) == {B} and verify(store).bad == [] == verify(store).notes


def test_rows_of_an_older_commit_left_by_a_crash_stay_hidden(
    store: Store, commit: Fill, add: Fill
) -> None:
    add(store, A)
    compact(store)
    for part in store.compacts("cells"):  # the cells are deleted, the rows are not
        part.unlink()
    assert accuracies(store) == {}
    commit(store, A)
    assert accuracies(store) == {}


def test_compaction_collects_rows_and_newer_ones_win(store: Store, add: Fill) -> None:
    for key in (A, B):
        add(store, key, 0.25)
    compact(store)
    assert store.singles(TABLE) == set() and len(store.compacts(TABLE)) == 1
    add(store, A, 0.5)
    expected = {A: [0.5, 0.5], B: [0.25, 0.25]}
    assert accuracies(store) == expected
    compact(store)
    assert accuracies(store) == expected and store.singles(TABLE) == set()
    assert verify(store).bad == [] == verify(store).notes


def test_verification_finds_altered_rows_and_accepts_missing_ones(store: Store, add: Fill) -> None:
    assert verify(store).bad == [] == verify(store).notes
    add(store, A)
    assert verify(store).bad == [] == verify(store).notes
    part = store.single(TABLE, A)
    table = pq.read_table(part, partitioning=None)
    pq.write_table(table.slice(0, 1), part)
    (found,) = verify(store).bad
    assert found.path == part and "was altered" in found.what


def test_verification_notes_rows_of_an_unfinished_cell(store: Store, add: Fill) -> None:
    add(store, A)
    store.single("cells", A).unlink()
    assert store.single(TABLE, A) in {found.path for found in verify(store).notes}
    assert accuracies(store) == {}


def test_a_merge_copies_rows_and_keeps_the_later_of_two(
    tmp_path: Path, commit: Fill, add: Fill
) -> None:
    one, other, target = (Store(tmp_path / name) for name in ("one", "other", "target"))
    for store in (one, other):
        commit(store, A)
        commit(store, B)
    add(one, A, 0.25, day=2)
    add(other, A, 0.75, day=1)
    add(other, B, 0.5)
    merge([one, other], target)
    assert accuracies(target) == {A: [0.25, 0.25], B: [0.5, 0.5]}
    add(other, A, 0.75, day=3)
    merge([other], target)
    assert accuracies(target) == {A: [0.75, 0.75], B: [0.5, 0.5]}
    assert verify(target).bad == [] == verify(target).notes


def test_a_merge_of_different_results_keeps_the_rows_of_each(
    tmp_path: Path, commit: Fill, add: Fill
) -> None:
    one, other, target = (Store(tmp_path / name) for name in ("one", "other", "target"))
    commit(one, A, accuracy=0.25)
    commit(other, A, accuracy=0.75)
    add(other, A, 0.5)
    (conflict,) = merge([one, other], target).conflicts
    assert accuracies(target) == {conflict.kept_as: [0.5, 0.5]}
    add(other, A, 0.4, day=9)
    merge([other], target)
    assert accuracies(target) == {conflict.kept_as: [0.4, 0.4]}


def test_a_deleted_table_reads_as_never_measured(store: Store, add: Fill) -> None:
    add(store, A)
    shutil.rmtree(store.folder / TABLE)
    assert accuracies(store) == {} and verify(store).bad == [] == verify(store).notes
