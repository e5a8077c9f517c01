"""Removing, comparing, joining and listing the cells of results folders."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from codingbench.cli.main import app
from codingbench.errors import CodingbenchError, SpecError, StoreError
from codingbench.schema import TABLES
from codingbench.store.compaction import compact
from codingbench.store.folder import Store
from codingbench.store.joined import joined
from codingbench.store.removal import remove
from codingbench.store.verification import verify
from tests.conftest import commit, row

A, B, C, FAILED = "aaaa1111" * 2, "aaaa2222" * 2, "cccc3333" * 2, "ffff0000" * 2


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Make a store of three finished cells, one of them with weights, and a failed one."""
    store = Store(tmp_path / "results")
    for key, encoder, steps in ((A, "gac", 4), (B, "gac", 6), (C, "rate", 4)):
        commit(store, key, encoder=encoder, num_steps=steps, seed=0)
    store.add(A, "robustness", [row("robustness", key=A)])
    store.record_failure(FAILED, row("failures", key=FAILED, encoder="gac"))
    for folder in ("weights", "checkpoints"):
        (store.folder / folder / A).mkdir(parents=True)
        (store.folder / folder / A / "000001.ckpt").write_bytes(b"x")
    return store


def invoke(*arguments: object, results: Path | None = None) -> Result:
    named = ["--results", str(results)] if results else []
    run = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*map(str, arguments), *named])
    if isinstance(run.exception, CodingbenchError):
        raise run.exception
    return run


def rows_of(store: Store, key: str) -> dict[str, int]:
    return {name: len(store.read(name, [key])) for name in TABLES}


# --- rm -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_compact", [False, True])
def test_a_removed_cell_leaves_nothing_and_the_others_all(store: Store, is_compact: bool) -> None:
    if is_compact:
        compact(store)
    before = {name: store.read(name, [B, C]) for name in TABLES}
    assert invoke("rm", A[:6], "--yes", results=store.folder).exit_code == 0
    assert not any(rows_of(store, A).values())
    assert is_compact or not [*store.folder.rglob(f"{A}*")]
    assert not [*(store.folder / "weights").iterdir(), *(store.folder / "checkpoints").iterdir()]
    for name, frame in before.items():
        assert store.read(name, [B, C]).equals(frame)
    report = verify(store)
    assert report.cells == 2 and not report.bad and not report.notes


def test_cells_are_removed_by_a_selection_and_failed_ones_by_their_key(store: Store) -> None:
    run = invoke("rm", "--encoders", "gac", "--where", "T > 4", "--yes", results=store.folder)
    assert "removed 1 cell from" in run.stdout and store.finished() == {A, C}
    invoke("rm", FAILED, "--yes", results=store.folder)
    assert not store.failed()


def test_nothing_is_removed_without_a_yes(store: Store) -> None:
    with pytest.raises(SpecError, match=r"not removed: 1 cell from .*--yes removes without asking"):
        invoke("rm", A, results=store.folder)
    with pytest.raises(SpecError, match="either keys of cells or options"):
        invoke("rm", "--yes", results=store.folder)
    with pytest.raises(SpecError, match="either keys of cells or options"):
        invoke("rm", A, "--T", 4, "--yes", results=store.folder)
    assert store.finished() == {A, B, C}


def test_a_running_cell_is_refused(store: Store) -> None:
    with store.claim(B), pytest.raises(StoreError, match=f"another process is running cell {B}"):
        remove(Store(store.folder), [B])
    assert B in store.finished()


@pytest.mark.parametrize("is_compact", [False, True])
def test_an_interrupted_removal_leaves_each_cell_whole_or_not_finished(
    store: Store, is_compact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_compact:
        compact(store)
    whole = {key: rows_of(store, key) for key in (A, B, C)}
    unlink, replace = Path.unlink, os.replace
    for stop_after in range(12):
        copy = Store(store.folder.with_name(f"copy{stop_after}"))
        shutil.copytree(store.folder, copy.folder)
        left = iter(range(stop_after))

        def or_killed(step: Callable[..., Any], left: Any = left) -> Callable[..., Any]:
            def run(*args: Any, **options: Any) -> Any:
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return step(*args, **options)

            return run

        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", or_killed(unlink))
            patched.setattr(os, "replace", or_killed(replace))
            with contextlib.suppress(KeyboardInterrupt):
                remove(copy, [A, B])
        again = Store(copy.folder)
        for key in (A, B, C):
            expected = whole[key] if key in again.finished() else dict.fromkeys(TABLES, 0)
            assert rows_of(again, key) == expected
        assert C in again.finished() and not verify(again).bad


def test_a_reader_that_began_before_a_removal_sees_the_cells_that_are_left(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, listed = Store(store.folder), Store._rows_as_listed
    calls = []

    def removing(self: Store, table: str, wanted: set[str]) -> Any:
        calls.append(wanted)
        if len(calls) == 1:
            remove(store, [A])
        return listed(self, table, wanted)

    monkeypatch.setattr(Store, "_rows_as_listed", removing)
    assert set(reader.read("steps")["key"]) == {B, C} and len(calls) == 2


# --- names of cells -------------------------------------------------------------------------------


def test_show_takes_a_coding_and_what_tells_its_cells_apart(store: Store) -> None:
    arguments = ("show", "gac", "--T", 6, "--seed", 0, "--format", "json")
    shown = json.loads(invoke(*arguments, results=store.folder).stdout)
    assert shown["cell"]["key"] == B
    with pytest.raises(SpecError, match=r"2 cells of 'gac' fit: choose one by num_steps=4, 6; or"):
        invoke("show", "gac", results=store.folder)
    with pytest.raises(SpecError, match="unknown coding in these results 'gca'; did you mean"):
        invoke("show", "gca", results=store.folder)


def test_verify_evaluates_cells_by_the_beginning_of_their_keys(store: Store) -> None:
    found = invoke("verify", "--evaluate", C[:5], results=store.folder)
    assert found.exit_code == 1 and f"the weights of {C} were not kept" in found.stdout
    with pytest.raises(SpecError, match="no cell 'eeee'"):
        invoke("verify", "--evaluate", "eeee", results=store.folder)


def test_cells_are_listed_as_a_table_and_as_json(store: Store) -> None:
    rows = json.loads(invoke("list", "cells", "--format", "json", results=store.folder).stdout)
    assert [row["key"] for row in rows] == [A, B, C] and "epochs" in rows[0]
    table = invoke("list", "cells", "--T", 4, results=store.folder).stdout
    assert A[:8] in table and C[:8] in table and B[:8] not in table
    with pytest.raises(SpecError, match="got list recipes"):
        invoke("list", "recipes", "--T", 4)


@pytest.mark.parametrize("kind", ["encoders", "backbones", "datasets", "recipes"])
def test_every_list_is_also_json(kind: str) -> None:
    rows = json.loads(invoke("list", kind, "--format", "json").stdout)
    assert len(rows) > 3 and all(len(row) > 1 for row in rows)


# --- several folders ------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Store:
    """Make a store with one of the cells, of another time, and one of its own."""
    other = Store(tmp_path / "other")
    commit(other, A, encoder="gac", num_steps=4, seed=0, wall_s=9.0)
    commit(other, "dddd4444" * 2, encoder="direct", num_steps=4, seed=0)
    return other


def test_folders_with_equal_results_are_read_as_one(store: Store, other: Store) -> None:
    both = joined([store.folder, other.folder])
    assert both.finished() == {A, B, C, "dddd4444" * 2} and both.failed() == {FAILED}
    cells = both.read("cells").set_index("key")
    assert cells.index.is_unique and cells.loc[A, "wall_s"] == 1.0  # that of the first folder
    assert len(both.read("steps", [A])) == 2 and len(both.read("robustness")) == 1
    shown = invoke(
        *("leaderboard", "--results", store.folder, "--results", other.folder, "--format", "json")
    )
    assert [row["encoder"] for row in json.loads(shown.stdout)].count("gac") == 2
    assert "direct" in shown.stdout


def test_folders_with_different_results_are_refused(store: Store, other: Store) -> None:
    commit(other, B, encoder="gac", num_steps=6, seed=0, accuracy=0.1)
    for command in (["leaderboard"], ["compare", "gac", "rate"], ["show", B], ["list", "cells"]):
        with pytest.raises(StoreError, match=f"have different results of {B} .steps"):
            invoke(*command, "--results", store.folder, results=other.folder)


def test_an_option_with_one_value_is_refused_when_given_twice(store: Store) -> None:
    for command in (["verify"], ["compact"], ["robustness", "all"], ["rm", A]):
        with pytest.raises(SpecError, match="--results is given 2 times, expected once"):
            invoke(*command, "--results", store.folder, results=store.folder)
    with pytest.raises(SpecError, match="--encoders is given 2 times"):
        invoke("run", "--encoders", "gac", "--encoders", "rate")
    with pytest.raises(SpecError, match="--data-dir is given 2 times"):
        invoke("data", "fetch", "mnist", "--data-dir", "a", "--data-dir", "b")


def test_diff_tells_equal_cells_from_those_with_other_results(store: Store, other: Store) -> None:
    commit(other, B, encoder="gac", num_steps=6, seed=0, accuracy=0.1)
    run = invoke("diff", store.folder, other.folder, "--format", "json")
    found = json.loads(run.stdout)
    assert run.exit_code == 1
    assert (found["first_only"], found["second_only"]) == ([C], ["dddd4444" * 2])
    assert found["equal"] == [A] and found["differing"] == {B: ["steps.accuracy", "cells.accuracy"]}
    table = " ".join(invoke("diff", store.folder, other.folder).stdout.split())
    assert (
        f"{B}: steps.accuracy, cells.accuracy differ" in table
        and "1 cell equal, 1 with different" in table
    )


def test_a_copy_does_not_differ(store: Store, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store.folder, copy)
    compact(Store(copy))
    run = invoke("diff", store.folder, copy)
    assert run.exit_code == 0 and "3 cells equal, 0 with different results" in run.stdout
