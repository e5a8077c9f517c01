import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from codingbench.cli import stores
from codingbench.errors import StoreError
from codingbench.store import compaction
from codingbench.store.compaction import compact
from codingbench.store.folder import RESULT_TABLES, Store
from codingbench.store.verification import verify

KEYS = [f"{number:016x}" for number in (3, 14, 15, 92, 65, 35, 89)]
WHOLE = (*RESULT_TABLES, "cells")
Commit = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def commit(store: Store, row_of: Callable[..., dict[str, Any]]) -> Commit:
    """Return a function (key, accuracy) that commits a cell with three rows in ``layers``."""

    def commit(key: str, accuracy: float = 0.5) -> None:
        cell = {name: [row_of(name, key=key)] for name in WHOLE}
        cell["cells"][0]["accuracy"] = cell["steps"][0]["accuracy"] = accuracy
        store.commit(key, cell | {"layers": cell["layers"] * 3})

    return commit


def contents(store: Store) -> dict[str, pd.DataFrame]:
    return {table: Store(store.folder).read(table) for table in (*WHOLE, "failures")}


def by_folder(store: Store, table: str) -> list[str]:
    return sorted(pd.read_parquet(store.folder / table)["key"])


def assert_equal(a: dict[str, pd.DataFrame], b: dict[str, pd.DataFrame]) -> None:
    for table in a:
        pd.testing.assert_frame_equal(a[table], b[table])


def test_compaction_changes_no_row(
    store: Store, commit: Commit, row_of: Callable[..., dict[str, Any]]
) -> None:
    for key in KEYS:
        commit(key)
    store.record_failure("f" * 16, row_of("failures", key="f" * 16))
    before = contents(store)
    done = compact(store)
    assert (done.gathered, done.parts) == (5 * len(KEYS) + 1, 6)
    assert_equal(contents(store), before)
    assert all(store.singles(table) == set() for table in WHOLE)
    assert store.finished() == set(KEYS) and store.failed() == {"f" * 16}
    assert all(store.is_finished(key) for key in KEYS) and not store.is_finished("f" * 16)
    for table in WHOLE:
        assert sorted(set(by_folder(store, table))) == sorted(KEYS)
    assert len(by_folder(store, "layers")) == 3 * len(KEYS)


def test_the_command_says_what_it_gathered(
    store: Store, commit: Commit, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(KEYS[0])
    stores.compact(store.folder)
    assert capsys.readouterr().out == "5 single files combined; there are now 5 compact files\n"


def test_the_command_refuses_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no results folder"):
        stores.compact(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_second_compaction_has_nothing_to_do(store: Store, commit: Commit) -> None:
    commit(KEYS[0])
    compact(store)
    parts = [store.compacts(table) for table in WHOLE]
    assert compact(store).gathered == 0
    assert [store.compacts(table) for table in WHOLE] == parts


def test_an_empty_folder_stays_empty(tmp_path: Path) -> None:
    assert compact(Store(tmp_path / "none")) == compaction.Compaction(0, 0)
    assert not (tmp_path / "none").exists()


def test_parts_are_cut_between_cells_and_named_after_their_keys(
    store: Store, commit: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "PART_ROWS", 8)
    for key in KEYS:
        commit(key)
    compact(store)
    held = [sorted(store.keys_of(part)) for part in store.compacts("layers")]
    ordered = sorted(KEYS)
    assert held == [ordered[0:2], ordered[2:4], ordered[4:6], ordered[6:]]  # 2 x 3 rows fit in 8
    names = [part.name[:33] for part in store.compacts("layers")]
    assert names == [f"{keys[0]}-{keys[-1]}" for keys in held]
    assert Store(store.folder).read("layers", [KEYS[3]])["key"].tolist() == [KEYS[3]] * 3


def test_cells_of_later_runs_join_the_part_that_is_not_full(store: Store, commit: Commit) -> None:
    for key in KEYS:
        commit(key)
        compact(store)
    assert [len(store.compacts(table)) for table in WHOLE] == [1] * 5
    assert store.read("cells")["key"].tolist() == sorted(KEYS)


def test_a_cell_run_again_is_taken_out_of_the_compact_part(store: Store, commit: Commit) -> None:
    for key in KEYS:
        commit(key, 0.25)
    compact(store)
    commit(KEYS[2], 0.75)
    expected = [0.75 if key == KEYS[2] else 0.25 for key in sorted(KEYS)]
    for table in ("cells", "steps"):
        assert Store(store.folder).read(table)["accuracy"].tolist() == expected
        assert by_folder(store, table) == sorted(KEYS)
    compact(store)
    assert store.read("steps")["accuracy"].tolist() == expected
    assert verify(store).bad == [] and verify(store).notes == []


def test_the_last_cell_taken_out_leaves_no_part(store: Store, commit: Commit) -> None:
    commit(KEYS[0], 0.25)
    compact(store)
    commit(KEYS[0], 0.75)
    assert all(store.compacts(table) == [] for table in WHOLE)
    assert store.read("cells")["accuracy"].tolist() == [0.75]


@pytest.mark.parametrize("steps", range(12))
def test_a_crash_at_any_step_loses_and_doubles_nothing(
    store: Store, commit: Commit, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    for key in KEYS[:3]:
        commit(key)
    compact(store)
    for key in KEYS[3:5]:
        commit(key)
    before, left = contents(store), [steps]

    def crash_after(real: Callable[..., None]) -> Callable[..., None]:
        def step(*arguments: Any, **options: Any) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            real(*arguments, **options)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", crash_after(os.replace))
        patched.setattr(Path, "unlink", crash_after(Path.unlink))
        with pytest.raises(KeyboardInterrupt):
            compact(store)
    assert_equal(contents(store), before)
    assert verify(Store(store.folder)).bad == []
    compact(store)
    assert_equal(contents(store), before)
    assert by_folder(store, "cells") == sorted(KEYS[:5])


def test_what_a_crash_left_of_a_cell_run_again_does_not_come_back(
    store: Store, commit: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in KEYS[:3]:
        commit(key, 0.25)
    compact(store)
    real = os.replace

    def crash_at_a_part_of_one_cell(source: Path, target: Path) -> None:
        if target.parent.name != "compact":
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", crash_at_a_part_of_one_cell)
        with pytest.raises(KeyboardInterrupt):
            commit(KEYS[0], 0.75)
    assert Store(store.folder).finished() == set(KEYS[1:3])
    commit(KEYS[0], 0.5)
    compact(store)
    accuracy = Store(store.folder).read("steps").set_index("key")["accuracy"]
    assert accuracy.to_dict() == {KEYS[0]: 0.5, KEYS[1]: 0.25, KEYS[2]: 0.25}


def test_parts_of_unfinished_cells_are_left_alone(store: Store, commit: Commit) -> None:
    commit(KEYS[0])
    commit(KEYS[1])
    store.single("cells", KEYS[1]).unlink()
    compact(store)
    assert store.singles("steps") == {KEYS[1]} and store.finished() == {KEYS[0]}


def test_an_altered_part_is_not_gathered(store: Store, commit: Commit) -> None:
    commit(KEYS[0])
    commit(KEYS[1])
    os.truncate(store.single("steps", KEYS[1]), 100)
    with pytest.raises(StoreError, match=f"{KEYS[1]}.parquet' is damaged"):
        compact(store)
    assert store.finished() == set(KEYS[:2])


def test_a_cell_of_no_rows_stays_known(store: Store, row_of: Callable[..., dict[str, Any]]) -> None:
    cell = {name: [row_of(name, key=KEYS[0])] for name in WHOLE} | {"predictions": []}
    store.commit(KEYS[0], cell)
    compact(store)
    assert store.read("predictions").empty and verify(store).bad == []
