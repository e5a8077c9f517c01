import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from codingbench.cli import stores
from codingbench.errors import StoreError
from codingbench.store.compaction import compact
from codingbench.store.folder import RESULT_TABLES, Store
from codingbench.store.merging import merge
from codingbench.store.verification import verify

K1, K2, K3 = (f"{number:016x}" for number in (1, 2, 3))
REFERENCE = Path(__file__).parents[1] / "results" / "reference" / "fashion_mini"
Fill = Callable[..., Store]


@pytest.fixture
def fill(tmp_path: Path, row_of: Callable[..., dict[str, Any]]) -> Fill:
    """Return a function (name, *keys, **values in ``cells``) that makes a store of cells."""

    def fill(name: str, *keys: str, **values: Any) -> Store:
        store = Store(tmp_path / name)
        for key in keys:
            cell = {t: [row_of(t, key=key)] for t in (*RESULT_TABLES, "cells")}
            cell["cells"][0] |= values
            store.commit(key, cell)
        return store

    return fill


def accuracies(store: Store) -> dict[str, float]:
    cells = store.read("cells").set_index("key")["accuracy"]
    return {str(key): float(value) for key, value in cells.items()}


def test_a_merge_has_the_cells_of_all(fill: Fill, tmp_path: Path) -> None:
    a, b = fill("a", K1, K2), fill("b", K3)
    compact(b)
    done = merge([a, b], target := Store(tmp_path / "c"))
    assert (done.added, done.identical, done.conflicts) == (3, 0, [])
    assert target.finished() == {K1, K2, K3}
    for table in (*RESULT_TABLES, "cells"):
        expected = pd.concat([a.read(table), b.read(table)], ignore_index=True)
        pd.testing.assert_frame_equal(target.read(table), expected)


def test_the_same_result_from_two_machines_is_one_cell(fill: Fill, tmp_path: Path) -> None:
    a, b = fill("a", K1, host="desk", wall_s=1.0), fill("b", K1, host="cluster", wall_s=9.0)
    done = merge([a, b], target := Store(tmp_path / "c"))
    assert (done.added, done.identical, done.conflicts) == (1, 1, [])
    assert target.read("cells")["host"].tolist() == ["desk"]


def test_different_results_of_a_cell_are_both_kept_and_named(fill: Fill, tmp_path: Path) -> None:
    a, b = fill("a", K1, accuracy=0.25), fill("b", K1, accuracy=0.75)
    done = merge([a, b], target := Store(tmp_path / "c"))
    (conflict,) = done.conflicts
    assert (conflict.key, conflict.source.folder) == (K1, b.folder)
    assert conflict.columns == ("cells.accuracy",)
    assert accuracies(target) == {K1: 0.25, conflict.kept_as: 0.75}
    assert set(target.read("predictions")["key"]) == {K1, conflict.kept_as}
    assert verify(target).bad == []


def test_the_command_names_the_conflicts(
    fill: Fill, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = fill("a", K1, K2, accuracy=0.25), fill("b", K1, accuracy=0.75)
    stores.merge([a.folder, b.folder], tmp_path / "c")
    conflict, summary = capsys.readouterr().out.splitlines()
    assert conflict.startswith(
        f"{K1} differs in {b.folder}: cells.accuracy; that result is kept as"
    )
    assert summary.startswith(
        "2 cells added, 0 already there with the same result, 1 with a different"
    )


def test_merging_again_adds_nothing(fill: Fill, tmp_path: Path) -> None:
    a, b = fill("a", K1, K2, accuracy=0.25), fill("b", K1, accuracy=0.75)
    first = merge([a, b], target := Store(tmp_path / "c"))
    before = accuracies(target)
    again = merge([b, a], target)
    assert (again.added, again.identical) == (0, 2)
    assert again.conflicts[0].kept_as == first.conflicts[0].kept_as
    assert accuracies(target) == before


def test_an_older_schema_is_merged_as_todays(tmp_path: Path) -> None:
    done = merge([Store(REFERENCE)], target := Store(tmp_path / "c"))
    assert done.added == 12
    pd.testing.assert_frame_equal(target.read("cells"), Store(REFERENCE).read("cells"))
    assert merge([Store(REFERENCE)], target).identical == 12


def test_counts_that_one_version_did_not_know_are_no_conflict(fill: Fill, tmp_path: Path) -> None:
    older, newer = fill("a", K1, lemaire_acs=None), fill("b", K1, lemaire_acs=7)
    for place, stores_in_order in enumerate(([older, newer], [newer, older])):
        done = merge(stores_in_order, Store(tmp_path / f"c{place}"))
        assert (done.added, done.identical, done.conflicts) == (1, 1, [])
    (conflict,) = merge(
        [older, fill("d", K1, effective_binary=None)], Store(tmp_path / "e")
    ).conflicts
    assert conflict.columns == ("cells.effective_binary",)


def test_notes_of_failed_cells_are_merged_but_where_the_cell_was_finished(
    fill: Fill, tmp_path: Path, row_of: Callable[..., dict[str, Any]]
) -> None:
    a, b = fill("a", K1), fill("b")
    day = [pd.Timestamp(f"2026-01-0{day}", tz="UTC") for day in (1, 2)]
    for store, when, reason in ((a, day[1], "later"), (b, day[0], "earlier")):
        note = row_of("failures", key=K2, failed_at=when, reason=reason)
        store.record_failure(K2, note)
    b.record_failure(K1, row_of("failures", key=K1))
    done = merge([a, b], target := Store(tmp_path / "c"))
    assert done.failures == 1
    assert target.failures()[["key", "reason"]].values.tolist() == [[K2, "later"]]


def test_a_bad_part_stops_the_merge_before_anything_is_written(fill: Fill, tmp_path: Path) -> None:
    a, b = fill("a", K1), fill("b", K2)
    part = b.single("steps", K2)
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(
        StoreError, match=rf"b' has 1 bad parts; the first is {K2}.parquet: is damaged"
    ):
        merge([a, b], Store(tmp_path / "c"))
    assert not (tmp_path / "c").exists()


def test_a_store_without_a_table_is_refused(fill: Fill, tmp_path: Path) -> None:
    shutil.rmtree(fill("a", K1).folder / "layers")
    with pytest.raises(StoreError, match="has no table 'layers': its cells are incomplete"):
        merge([Store(tmp_path / "a")], Store(tmp_path / "c"))


def test_a_store_is_not_merged_into_itself_nor_a_store_of_nothing(
    fill: Fill, tmp_path: Path
) -> None:
    a = fill("a", K1)
    with pytest.raises(StoreError, match="cannot be merged into itself"):
        merge([a], Store(tmp_path / "b" / ".." / "a"))
    with pytest.raises(StoreError, match=r"no results folder '.*none', expected cells to merge"):
        merge([Store(tmp_path / "none")], a)


def test_a_cell_that_is_being_run_is_not_merged_over(fill: Fill, tmp_path: Path) -> None:
    a, target = fill("a", K1), Store(tmp_path / "c")
    with (
        target.claim(K1),
        pytest.raises(StoreError, match=f"another process is running cell {K1} .*merge later"),
    ):
        merge([a], target)
