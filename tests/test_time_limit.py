"""A run with a time limit ends at an epoch's end; continued, it ends with the same bits."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from codingbench.cells.grid import Grid, Job
from codingbench.cells.settings import parse_settings, read_config
from codingbench.errors import CodingbenchError, SpecError
from codingbench.executors.base import Outcome, run_grid
from codingbench.executors.config import ExecutorConfig
from codingbench.executors.limit import TimeLimit
from codingbench.executors.local import InProcess
from codingbench.executors.processes import Processes
from codingbench.executors.session import plan
from codingbench.store.folder import Store
from codingbench.training.budget import Allowance, OutOfTime, TimeBudget
from tests.grids import GRID, Recorder, assert_same, config_of, numbers

LONG = Grid(**{**vars(GRID), "encoders": ("rate", "direct"), "epochs": 4})


# --- one training ---------------------------------------------------------------------------------


def allows(budget: TimeBudget, *seconds: float, save_s: float = 0.0) -> bool:
    """Return whether another of 10 epochs fits behind epochs that took these seconds."""
    try:
        budget.check([{"wall_s": wall_s} for wall_s in seconds], 10, save_s)
    except OutOfTime:
        return False
    return True


@pytest.mark.parametrize(
    ("done", "left_s", "fits"),
    [
        ((), 11.1, True),  # the expected 10 s and a margin of 10 %
        ((), 10.9, False),
        ((20.0,), 22.6, True),  # its own epochs, and half a second for a checkpoint
        ((20.0,), 22.4, False),
        ((99.0, 1.0, 3.0, 2.0), 3.9, True),  # the longest of the last three
        ((99.0, 1.0, 3.0, 2.0), 3.7, False),
        ((10.0,) * 9, 13.1, True),  # the last one leaves a fifth of an epoch for the measurement
        ((10.0,) * 9, 12.9, False),
        ((10.0,) * 10, 2.1, True),  # only the measurement is left
        ((10.0,) * 10, 1.9, False),
    ],
)
def test_an_epoch_is_begun_if_it_fits(done: tuple[float, ...], left_s: float, fits: bool) -> None:
    clock = [0.0]
    budget = TimeBudget(Allowance(end=100.0, epoch_s=10.0, test_epochs=0.2), lambda: clock[0])
    budget.check([], 10, save_s=0.0)
    clock[0] = 100 - left_s
    assert allows(budget, *done, save_s=0.5 if done else 0.0) is fits


def test_an_epoch_of_unknown_time_is_begun_while_any_time_is_left() -> None:
    clock = [0.0]
    budget = TimeBudget(Allowance(end=5.0, epoch_s=None, test_epochs=0.2), lambda: clock[0])
    assert allows(budget)
    clock[0] = 5.0
    assert not allows(budget)


def test_a_slow_epoch_of_an_earlier_session_does_not_block_the_training() -> None:
    budget = TimeBudget(Allowance(end=100.0, epoch_s=None, test_epochs=0.2), lambda: 95.0)
    assert allows(budget, 99.0, 4.0, 99.0)  # the shortest, for the first epoch of a session
    assert not allows(budget, 99.0, 4.0, 99.0, 4.0)


def test_the_time_that_is_needed_is_said() -> None:
    budget = TimeBudget(Allowance(end=0.0, epoch_s=20.0, test_epochs=0.2), lambda: 0.0)
    with pytest.raises(OutOfTime, match=r"^its next epoch needs about 22 s$"):
        budget.check([], 10, 0.0)


# --- what a run learns ----------------------------------------------------------------------------


def job(encoder: str, num_steps: int, **bounds: Any) -> Job:
    fields = {**vars(GRID), "encoders": (encoder,), "num_steps": (num_steps,), **bounds}
    (only,) = Grid(**fields).expand()
    return only


def test_a_cell_is_expected_to_take_as_long_as_one_like_it_else_in_proportion_to_T() -> None:
    limit = TimeLimit(100.0, clock=lambda: 0.0)
    assert limit.expected_s(job("direct", 2)) is None and limit.admits(job("direct", 2))
    limit.epoch_ended(job("direct", 2).cell, 10.0)
    limit.epoch_ended(job("rate", 4).cell, 40.0)
    assert limit.expected_s(job("direct", 2, seeds=(7,))) == 10.0
    assert limit.expected_s(job("gac", 8)) == 80.0  # the longer of 4 x 10 s and 2 x 40 s
    assert limit.expected_s(job("direct", 2, train_samples=60)) is None  # other images
    limit.epoch_ended(job("direct", 2).cell, 12.0)
    assert limit.expected_s(job("direct", 2)) == 12.0  # the latest


def test_the_measurement_is_expected_to_take_as_long_as_that_of_a_cell_like_it() -> None:
    clock, cell = [0.0], job("direct", 2)
    limit = TimeLimit(1000.0, clock=lambda: clock[0])
    unknown = limit.allowance(cell)
    # twice 60 test images, each 0.4 of a trained one; 120 images, of which a tenth only validates
    assert unknown and unknown.test_epochs == pytest.approx(2 * 0.4 * 60 / (120 * 0.94))
    heard = limit.learning(Recorder(), cell)
    heard.epoch_done({"wall_s": 10.0})
    clock[0] = 2.0
    heard.measuring(30, 60)
    clock[0] = 5.0
    heard.measuring(60, 60)
    assert limit.allowance(cell) == Allowance(end=1000.0, epoch_s=10.0, test_epochs=0.5)


def test_without_a_limit_nothing_is_refused_or_watched() -> None:
    limit, recorder, cell = TimeLimit(), Recorder(), job("direct", 2)
    assert limit.admits(cell) and limit.allowance(cell) is None
    assert limit.learning(recorder, cell) is recorder


# --- whole runs -----------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], float]]:
    """A clock by which every look at it takes a second; return its time without a look."""
    now = [1000.0]

    def tick() -> float:
        now[0] += 1.0
        return now[0]

    for name in ("monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, tick)
    monkeypatch.setattr("codingbench.executors.worker.epoch_seconds", lambda *_: 10.0)
    yield lambda: now[0]


def limited(folder: Path, seconds: float) -> tuple[Outcome, Recorder]:
    limit, recorder = TimeLimit(seconds), Recorder()
    outcome = run_grid(config_of(LONG, folder), InProcess(limit), recorder, limit=limit)
    return outcome, recorder


def test_a_grid_in_slices_ends_with_the_bits_of_one_run_and_no_slice_takes_longer_than_its_limit(
    tmp_path: Path, clock: Callable[[], float]
) -> None:
    started = clock()
    outcome, _ = limited(tmp_path / "whole", 1e9)
    assert outcome == Outcome(done=2, skipped=0, failed=0, left=0)
    whole_s, limit_s = clock() - started, (clock() - started) / 4
    slices = 0
    while outcome.done + outcome.skipped < 2 or not slices:
        began = clock()
        outcome, recorder = limited(tmp_path / "slices", limit_s)
        slices += 1
        assert clock() - began < limit_s + 0.05 * whole_s
        assert outcome.done + outcome.skipped + outcome.left == 2 and not outcome.failed
        assert len(recorder.done) == outcome.done
    assert slices > 3
    assert_same(tmp_path / "slices", numbers(tmp_path / "whole"))
    assert not list((tmp_path / "slices" / "checkpoints").glob("*"))


def test_a_limit_in_which_no_epoch_fits_is_refused_in_one_line(
    tmp_path: Path, clock: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codingbench.executors.worker.epoch_seconds", lambda *_: 1e6)
    with pytest.raises(CodingbenchError, match=r"time limit of 5000 s; .*needs about"):
        limited(tmp_path, 5000)
    assert not Store(tmp_path).finished() and not list(tmp_path.glob("checkpoints/*"))


def test_cells_that_do_not_fit_are_not_begun_by_worker_processes(tmp_path: Path) -> None:
    grid = Grid(**{**vars(GRID), "encoders": ("direct",), "num_steps": (1, 8)})
    limit, recorder = TimeLimit(3600.0), Recorder()
    limit.epoch_ended(grid.expand()[1].cell, 1e6)  # T = 8
    limit.epoch_ended(grid.expand()[0].cell, 1.0)
    outcome = run_grid(config_of(grid, tmp_path), Processes(1, limit=limit), recorder, limit=limit)
    assert outcome == Outcome(done=1, skipped=0, failed=0, left=1)
    assert recorder.started == recorder.done == ["direct"] and not recorder.paused
    assert Store(tmp_path).read("cells")["num_steps"].tolist() == [1]


def test_a_worker_process_pauses_a_cell_whose_time_is_over_before_its_first_epoch(
    tmp_path: Path,
) -> None:
    grid = Grid(**{**vars(GRID), "encoders": ("direct",)})
    limit, recorder = TimeLimit(0.3), Recorder()  # the process takes longer to start
    with pytest.raises(CodingbenchError, match=r"time limit of 0\.3 s"):
        run_grid(config_of(grid, tmp_path), Processes(1, limit=limit), recorder, limit=limit)
    assert recorder.paused == ["direct"]


def test_an_estimate_leaves_the_random_generators_as_they_were() -> None:
    from codingbench.cells.estimate import epoch_seconds

    before = torch.get_rng_state()
    assert epoch_seconds(job("direct", 2), torch.device("cpu")) > 0
    assert torch.equal(before, torch.get_rng_state())


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("12m", 720), ("90s", 90), ("1h30m", 5400), ("1h30m15s", 5415), ("45", 45), (45, 45),
     (2.5, 2.5), ("1.5h", 5400), (None, None)],
)  # fmt: skip
def test_a_time_limit_is_a_number_of_seconds_or_has_units(
    value: Any, seconds: float | None
) -> None:
    assert parse_settings({"time_limit": value}).time_limit_s == seconds


@pytest.mark.parametrize(
    "value", ["", "12 m", "m", "12x", "1m1h", "0", "0.5s", "-5", "inf", "nan", True, [3], "\uff11m"]
)
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match="time_limit expects a time such as 90s, 12m or 1h30m, got"):
        parse_settings({"time_limit": value})


def test_a_file_holds_the_time_limit_and_the_results_folder(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text('results = "there"\ntime_limit = "12m"\n')
    settings = parse_settings(read_config(path))
    assert (settings.results, settings.time_limit_s) == (Path("there").resolve(), 720)


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_executors_whose_jobs_wait_for_room_refuse_a_time_limit(name: str) -> None:
    settings = parse_settings({"time_limit": "12m"})
    with pytest.raises(SpecError, match=f"--time-limit has no effect on {name}"):
        plan(settings, executor=ExecutorConfig(name))


def test_cells_on_several_devices_refuse_a_time_limit() -> None:
    settings = replace(parse_settings({"time_limit": "12m"}), devices=2)
    with pytest.raises(SpecError, match="--time-limit needs cells on one device, got --devices 2"):
        plan(settings)
