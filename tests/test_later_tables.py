"""What is measured of finished cells afterwards, through all that is done to a store."""

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
    """(store, key, ...) -> a finished cell."""

    def commit(store: Store, key: str, **values: Any) -> None:
        cell = {name: [row_of(name, key=key)] for name in (*RESULT_TABLES, "cells")}
        cell["cells"][0] |= values
        store.commit(key, cell)

    return commit


@pytest.fixture
def add(row_of: Callable[..., dict[str, Any]]) -> Fill:
    """(store, key, accuracy, day) -> two rows of what was measured afterwards."""

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


def test_a_finished_cell_may_have_none_or_get_them_and_get_them_anew(
    store: Store, add: Fill
) -> None:
    assert store.read(TABLE).empty
    add(store, B, 0.25)
    assert accuracies(store) == {B: [0.25, 0.25]}
    add(store, B, 0.75)
    assert accuracies(store) == {B: [0.75, 0.75]} and store.finished() == {A, B}


def test_only_finished_cells_and_their_own_tables_get_any(store: Store, add: Fill) -> None:
    with pytest.raises(StoreError, match=f"no finished cell '{C}'"):
        add(store, C)
    with pytest.raises(ValueError, match="table must be one of"):
        store.add(A, "steps", [])


def test_a_store_of_before_there_were_any_reads_as_without(tmp_path: Path) -> None:
    assert Store(REFERENCE).read(TABLE).empty and len(Store(REFERENCE).finished()) == 12


@pytest.mark.parametrize("is_compact", [False, True])
def test_a_cell_run_again_loses_them(
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


def test_rows_that_a_crash_left_of_an_older_commit_do_not_come_back(
    store: Store, commit: Fill, add: Fill
) -> None:
    add(store, A)
    compact(store)
    for part in store.compacts("cells"):  # the cells are gone, the rows are not
        part.unlink()
    assert accuracies(store) == {}
    commit(store, A)
    assert accuracies(store) == {}


def test_compaction_gathers_them_and_newer_ones_win(store: Store, add: Fill) -> None:
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


def test_verification_finds_altered_ones_and_asks_for_none(store: Store, add: Fill) -> None:
    assert verify(store).bad == [] == verify(store).notes
    add(store, A)
    assert verify(store).bad == [] == verify(store).notes
    part = store.single(TABLE, A)
    table = pq.read_table(part, partitioning=None)
    pq.write_table(table.slice(0, 1), part)
    (found,) = verify(store).bad
    assert found.path == part and "was altered" in found.what


def test_verification_notes_those_of_an_unfinished_cell(store: Store, add: Fill) -> None:
    add(store, A)
    store.single("cells", A).unlink()
    assert store.single(TABLE, A) in {found.path for found in verify(store).notes}
    assert accuracies(store) == {}


def test_a_merge_takes_them_along_and_of_two_the_later(
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


def test_a_merge_of_different_results_keeps_each_with_its_own(
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


def test_a_table_that_was_not_handed_on_is_as_never_measured(store: Store, add: Fill) -> None:
    add(store, A)
    shutil.rmtree(store.folder / TABLE)
    assert accuracies(store) == {} and verify(store).bad == [] == verify(store).notes
