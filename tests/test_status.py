"""``codingbench status``: the state of every cell, from the store alone."""

import io
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from codingbench.analysis.status import status
from codingbench.cells.grid import Grid
from codingbench.errors import StoreError
from codingbench.executors.base import run_grid
from codingbench.executors.heartbeat import Heartbeat, name_of
from codingbench.executors.limit import TimeLimit
from codingbench.executors.local import InProcess
from codingbench.runtime.host import host_hash
from codingbench.runtime.interrupts import StopRequest
from codingbench.schema import TABLES
from codingbench.store.folder import Store
from codingbench.store.merging import merge
from codingbench.store.progress import (
    CellName,
    CellProgress,
    read_grids,
    read_progress,
    write_grid,
    write_progress,
)
from codingbench.training.checkpoint import Checkpoints
from codingbench.training.loop import Interrupted
from codingbench.training.meter import Pulse
from codingbench.views import status as view
from tests.grids import GRID, Recorder, config_of
from tests.test_cli_run import assert_refused, call

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DONE, FAILED = "aaaa1111aaaa1111", "ffff0000ffff0000"  # of the fixture ``results``
KEYS = ["bbbb0000bbbb0000", "cccc0000cccc0000", "dddd0000dddd0000"]


def name(encoder: str = "rate", **values: Any) -> CellName:
    usual = {"dataset": "digits", "backbone": "text", "neuron": "default", "num_steps": 2}
    return CellName(
        **{**usual, "recipe": "text", "encoder": encoder, "epochs": 1, "seed": 0, **values}
    )


def progress(key: str, **values: Any) -> CellProgress:
    usual: dict[str, Any] = {
        "name": name(epochs=30),
        "state": "running",
        "phase": "training",
        "epoch": 12,
        "done": 0.375,
        "loss": 1.25,
        "train_accuracy": 0.5,
        "images_per_s": 12345.6,
        "left_s": 180.0,
        "updated_at": NOW,
        "host": "elsewhere",
        "pid": 1,
    }
    return CellProgress(key=key, **(usual | values))


@pytest.fixture
def store(results: Path) -> Store:
    """Two cells that are done, one that failed, one running, one stopped, one waiting."""
    write_progress(results, progress(KEYS[0]))
    write_progress(results, progress(KEYS[1], state="stopped"))
    cells = {KEYS[i]: name(epochs=30, seed=i) for i in range(3)}
    write_grid(results, {DONE: name("gac[heads=2]"), **cells})
    return Store(results)


def states(store: Store, **options: Any) -> dict[str, str]:
    return dict(status(store, now=NOW, **options)[["key", "state"]].itertuples(index=False))


def test_every_cell_has_its_state(store: Store) -> None:
    assert states(store) == {
        KEYS[0]: "running",
        KEYS[1]: "stopped",
        FAILED: "failed",
        KEYS[2]: "waiting",
        DONE: "done",
        "aaaa2222aaaa2222": "done",
    }


def test_a_running_cell_has_epoch_loss_speed_and_time_left(store: Store) -> None:
    row = status(store, now=NOW).iloc[0]
    assert (row["epoch"], row["epochs"], row["loss"], row["left_s"]) == (12, 30, 1.25, 180.0)
    assert (row["images_per_s"], row["train_accuracy"]) == (12345.6, 0.5)


def test_cells_that_are_left_take_as_long_as_finished_ones(store: Store) -> None:
    left = status(store, now=NOW).set_index("key")["left_s"]
    assert left[KEYS[2]] == 1.0  # train_wall_s of the cells of the fixture
    assert left[KEYS[1]] == 0.625  # three eighths are done


@pytest.mark.parametrize(
    ("values", "age_s", "state"),
    [
        ({}, 59, "running"),
        ({}, 61, "stopped"),  # silent for a minute
        ({"host": host_hash(), "pid": 2**22 + 1}, 13, "stopped"),  # no such process here
        ({"host": host_hash(), "pid": 2**22 + 1}, 11, "running"),
        ({"host": host_hash(), "pid": os.getpid()}, 13, "running"),
        ({}, -30, "running"),  # the clock of the other machine is ahead
        ({"state": "stopped"}, 0, "stopped"),
    ],
)
def test_a_cell_whose_process_is_gone_has_stopped(
    tmp_path: Path, values: dict[str, Any], age_s: float, state: str
) -> None:
    write_progress(tmp_path, progress(KEYS[0], **values))
    moment = NOW + timedelta(seconds=age_s)
    assert status(Store(tmp_path), now=moment)["state"].tolist() == [state]


def test_a_failed_cell_that_is_tried_again_is_running(store: Store) -> None:
    write_progress(store.folder, progress(FAILED))
    assert states(store)[FAILED] == "running"
    write_progress(store.folder, progress(FAILED, state="stopped"))
    assert states(store)[FAILED] == "failed"


def test_a_finished_cell_is_done_whatever_was_left_behind(store: Store) -> None:
    write_progress(store.folder, progress(DONE))
    assert states(store)[DONE] == "done"


def test_only_the_cells_of_a_grid_are_shown_if_it_is_given(store: Store) -> None:
    cells = {KEYS[0]: name(), "eeee0000eeee0000": name(), DONE: name()}
    assert states(store, cells=cells) == {
        KEYS[0]: "running",
        "eeee0000eeee0000": "waiting",
        DONE: "done",
    }


def test_checkpoints_without_a_readable_progress_are_of_a_stopped_cell(store: Store) -> None:
    for key in (KEYS[1], "eeee0000eeee0000"):
        Checkpoints(store.folder / "checkpoints", key).save({})
        (store.folder / "checkpoints" / key / "progress.json").write_text('{"key": "\\u001b[2J"}')
    table = status(store, now=NOW).set_index("key")
    assert table["state"][KEYS[1]] == table["state"]["eeee0000eeee0000"] == "stopped"
    assert table["encoder"][KEYS[1]] == "rate"  # from the note about the grid
    view.render(status(store, now=NOW))  # a name that is unknown is a dash


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b"\xff",
        b'{"cells": {"bbbb0000bbbb0000": {"encoder": "\\u001b[31mred"}}}',
        b'{"cells": {"../../etc": {}}}',
    ],
)
def test_a_file_that_no_run_wrote_is_left_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".runs").mkdir()
    (tmp_path / ".runs" / "aaaa.json").write_bytes(content)
    assert read_grids(tmp_path) == []


def test_a_folder_without_results_or_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no finished cell in"):
        status(Store(tmp_path))
    with pytest.raises(StoreError, match="there is no results folder"):
        status(Store(tmp_path / "nowhere"))


# --- written by runs ------------------------------------------------------------------------------

TWO = Grid(**{**vars(GRID), "encoders": ("rate", "direct"), "epochs": 3})


def test_a_run_tells_its_progress_and_a_completed_one_leaves_nothing(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []
    recorder, store = Recorder(), Store(tmp_path)

    def look() -> None:
        frame = status(store)
        seen.append(dict(frame[["encoder", "state"]].itertuples(index=False)))

    recorder.after_pulse = look
    run_grid(config_of(TWO, tmp_path), InProcess(), recorder)
    assert seen[0] == {"rate": "running", "direct": "waiting"}
    assert seen[-1] == {"direct": "running", "rate": "done"}
    assert set(status(store)["state"]) == {"done"}
    left = {path.name for path in tmp_path.iterdir()}
    assert left - {"checkpoints", ".locks", "weights"} == set(TABLES) - {"failures", "robustness"}
    assert not list(tmp_path.glob("checkpoints/*"))


def test_an_interrupted_run_leaves_cells_that_have_stopped_and_that_wait(tmp_path: Path) -> None:
    stop, recorder = StopRequest(), Recorder()
    recorder.after_pulse = lambda: setattr(stop, "signal", 15)
    with pytest.raises(Interrupted):
        run_grid(config_of(TWO, tmp_path), InProcess(), recorder, stop)
    frame = status(Store(tmp_path)).set_index("encoder")
    assert frame["state"].to_dict() == {"rate": "stopped", "direct": "waiting"}
    assert frame.loc["rate", "epoch"] == 1 and frame.loc["rate", "epochs"] == 3


def test_the_thread_writes_what_was_noted_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codingbench.executors.heartbeat.BEAT_S", 0.01)
    (job,) = Grid(encoders=("direct",)).expand()
    with Heartbeat(Recorder(), tmp_path, KEYS[0], job, names_host=False) as heard:
        heard.pulse(Pulse(2, 4, 0.25, 99.0, 1.5, 0.75))
        until = time.monotonic() + 30
        while (found := read_progress(tmp_path).get(KEYS[0])) is None or not found.epoch:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert (found.epoch, found.loss, found.train_accuracy) == (2, 1.5, 0.75)
        assert (found.name, found.host, found.pid) == (name_of(job.cell), None, os.getpid())
    assert read_progress(tmp_path) == {} and not list(tmp_path.glob("checkpoints/*"))


def test_a_cell_that_goes_on_begins_with_the_progress_of_its_checkpoints(tmp_path: Path) -> None:
    (job,) = Grid(encoders=("direct",)).expand()
    Checkpoints(tmp_path / "checkpoints", KEYS[0]).save({})
    write_progress(tmp_path, progress(KEYS[0], state="stopped"))
    with Heartbeat(Recorder(), tmp_path, KEYS[0], job, names_host=True):
        pass
    found = read_progress(tmp_path)[KEYS[0]]
    assert found and (found.state, found.epoch, found.done, found.loss) == (
        "stopped",
        12,
        0.375,
        1.25,
    )
    assert found.pid == os.getpid() and found.images_per_s is None


def test_a_folder_that_cannot_be_written_does_not_disturb_the_cell(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    (job,) = Grid(encoders=("direct",)).expand()
    with Heartbeat(Recorder(), tmp_path, KEYS[0], job, names_host=True) as heard:
        heard.measuring(1, 2)


def test_slices_of_one_grid_in_two_stores_merge_and_status_knows_what_is_left(
    tmp_path: Path,
) -> None:
    rest = Grid(**{**vars(TWO), "encoders": ("rate", "direct"), "seeds": (0, 1)})
    for store, seed in (("desk", 0), ("cluster", 1)):
        part = Grid(**{**vars(rest), "encoders": ("rate",), "seeds": (seed,)})
        run_grid(config_of(part, tmp_path / store), InProcess(), Recorder())
        limit = TimeLimit(3600.0)
        for job in rest.expand():
            limit.epoch_ended(job.cell, 1e6)  # no other cell fits
        config = config_of(rest, tmp_path / store)
        outcome = run_grid(config, InProcess(limit), Recorder(), limit=limit)
        assert (outcome.skipped, outcome.left) == (1, 3)
        (tmp_path / store / "checkpoints" / KEYS[0]).mkdir(parents=True)
        write_progress(tmp_path / store, progress(KEYS[0]))
    done = merge([Store(tmp_path / "desk"), Store(tmp_path / "cluster")], Store(tmp_path / "all"))
    assert (done.added, done.conflicts) == (2, [])
    counts = status(Store(tmp_path / "all"))["state"].value_counts().to_dict()
    assert counts == {"done": 2, "waiting": 2}
    shown = call("leaderboard", "--results", tmp_path / "all", "--format", "json")
    assert [(row["encoder"], row["seeds"]) for row in json.loads(shown.stdout)] == [("rate", 2)]


# --- shown ----------------------------------------------------------------------------------------


def lines(store: Store, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(view.render(status(store, now=NOW)))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_terminal_of_80_columns_shows_all_numbers_and_names_whole(store: Store) -> None:
    encoder = "latency[scale=exponential,weighted=true]"
    write_progress(store.folder, progress(KEYS[0], name=name(encoder, epochs=30, seed=1)))
    shown = lines(store)
    counts = "2 of 6 cells done, 1 running, 1 stopped, 1 failed, 1 waiting"
    assert shown[:2] == [
        f"{counts}, about 3 min left",
        "digits, recipe text, backbone text",
    ]
    row = next(line for line in shown if encoder in line)
    assert row.split() == [encoder, "2", "1", "12/30", "1.250", "12,346", "3", "min"]
    assert any("out of [memory]" in line for line in shown)
    assert max(map(len, shown)) <= 80


def test_a_cell_in_its_measurement_shows_it(store: Store) -> None:
    write_progress(store.folder, progress(KEYS[0], phase="measuring"))
    assert any(
        line.split()[-5:] == ["test", "1.250", "12,346", "3", "min"] for line in lines(store)
    )


def test_cells_beyond_the_first_eight_of_a_state_are_counted(tmp_path: Path) -> None:
    for i in range(11):
        write_progress(tmp_path, progress(f"{i:016x}"))
    shown = lines(Store(tmp_path))
    assert "3 more; --format json has all" in shown


def test_json_has_one_object_per_cell_with_all_columns(store: Store) -> None:
    done = call("status", "--results", store.folder, "--format", "json")
    rows = {row["key"]: row for row in json.loads(done.stdout)}
    assert done.status == 0 and len(rows) == 6
    assert rows[KEYS[2]]["state"] == "waiting" and rows[KEYS[2]]["loss"] is None
    assert rows[DONE]["accuracy"] == 0.875 and rows[DONE]["encoder"] == "gac[heads=2]"
    assert rows[FAILED]["reason"] == "out of [memory]"


def test_watch_renews_the_table_and_ends_quietly_with_ctrl_c(store: Store) -> None:
    frames = [status(store, now=NOW)]
    write_progress(store.folder, progress(KEYS[0], epoch=13))
    frames.append(status(store, now=NOW))
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None)

    def pressed(seconds: float) -> None:
        if not frames:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", pressed)
        view.watch(lambda: frames.pop(0), console)
    assert "12/30" in out.getvalue() and "13/30" in out.getvalue()


def test_watch_ends_when_no_cell_is_left(results: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    view.watch(lambda: status(Store(results)), console)


def test_watch_needs_a_terminal_and_a_table(store: Store) -> None:
    assert_refused(call("status", "--results", store.folder, "--watch"), "--watch needs a terminal")
    json_too = call("status", "--results", store.folder, "--watch", "--format", "json")
    assert_refused(json_too, "--watch shows a table, got --format json")


def test_a_configuration_knows_the_cells_that_were_never_begun(tmp_path: Path) -> None:
    config = tmp_path / "grid.toml"
    config.write_text(f'encoders = "rate,direct"\nresults = "{tmp_path / "there"}"\n')
    write_progress(tmp_path / "there", progress(KEYS[0]))
    shown = call("status", "--config", config, "--format", "json")
    rows = json.loads(shown.stdout)
    assert [(row["encoder"], row["state"]) for row in rows] == [
        ("rate", "waiting"),
        ("direct", "waiting"),
    ]


def test_a_configuration_whose_images_are_elsewhere_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "grid.toml"
    config.write_text(f'dataset = "cifar10"\ndata_dir = "{tmp_path}"\nresults = "{tmp_path}"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path))
        refused = call("status", "--config", config)
    assert_refused(refused, "the files of cifar10 are not on this machine")


def test_status_without_a_configuration_does_not_import_torch(results: Path) -> None:
    code = (
        "import sys; sys.argv = ['codingbench', 'status', '--results', sys.argv[1]]\n"
        "from codingbench.cli.main import app\n"
        "app(standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, results], check=True, capture_output=True)


def test_two_runs_of_one_grid_share_a_note(tmp_path: Path) -> None:
    cells = {key: name() for key in KEYS}
    write_grid(tmp_path, cells)
    write_grid(tmp_path, dict(reversed(cells.items())))
    assert read_grids(tmp_path) == [cells]
