"""The same cells under every executor, and cells whose process dies or hangs."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from codingbench.cells.grid import Grid
from codingbench.cells.run import RunConfig
from codingbench.errors import CodingbenchError, SpecError
from codingbench.executors.base import Executor, Outcome, run_grid
from codingbench.executors.config import ExecutorConfig
from codingbench.executors.local import InProcess
from codingbench.executors.processes import Processes
from codingbench.runtime.interrupts import StopRequest
from codingbench.store.folder import Store
from codingbench.training.loop import Interrupted
from tests.grids import FAULTY, GRID, Recorder, assert_same, config_of, numbers, run


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """The tables that one process writes for the grid."""
    folder: Path = tmp_path_factory.mktemp("serial")
    outcome, _ = run(InProcess(), GRID, folder)
    assert outcome == Outcome(done=3, skipped=0, failed=0)
    return numbers(folder)


def test_cells_side_by_side_are_those_of_one_process_to_the_last_bit(
    tmp_path: Path, serial: dict[str, pd.DataFrame]
) -> None:
    outcome, recorder = run(Processes(2), GRID, tmp_path)
    assert outcome == Outcome(done=3, skipped=0, failed=0)
    assert recorder.started == ["gac", "rate", "direct"] and sorted(recorder.done) == sorted(
        recorder.started
    )
    assert recorder.pulses >= 3  # events of the processes arrive
    assert_same(tmp_path, serial)


def test_finished_cells_are_not_given_to_any_process(
    tmp_path: Path, serial: dict[str, pd.DataFrame]
) -> None:
    one = Grid(**{**vars(GRID), "encoders": ("rate",)})
    run(InProcess(), one, tmp_path)
    outcome, recorder = run(InProcess(), GRID, tmp_path)
    assert outcome == Outcome(done=2, skipped=1, failed=0)
    assert recorder.skipped == ["rate"] and sorted(recorder.done) == ["direct", "gac"]
    assert_same(tmp_path, serial)


@dataclass(frozen=True)
class Faults:
    """A working coding among some whose process dies or hangs; each may be tried twice."""

    outcome: Outcome
    recorder: Recorder
    folder: Path


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    if os.name != "posix":
        pytest.skip("POSIX signals")
    folder: Path = tmp_path_factory.mktemp("faults")
    path = folder / "faulty.py"
    path.write_text(FAULTY)
    names = ("Hangs", "DiesOnce", "DiesAlways")
    encoders = (*(f"{path}:{name}" for name in names), "direct")
    grid = Grid(**{**vars(GRID), "encoders": encoders})
    results = folder / "results"
    return Faults(*run(Processes(2, timeout_s=20, retries=1), grid, results), results)


@pytest.mark.thorough
def test_a_cell_whose_process_died_or_hung_is_tried_again(faults: Faults) -> None:
    assert faults.outcome == Outcome(done=2, skipped=0, failed=2)
    assert sorted(faults.recorder.done) == ["DiesOnce", "direct"]
    started = faults.recorder.started
    tries = {name: started.count(name) for name in sorted(set(started))}
    assert tries == {"DiesAlways": 2, "DiesOnce": 2, "Hangs": 2, "direct": 1}


@pytest.mark.thorough
def test_after_the_last_try_it_has_failed_with_the_reason(faults: Faults) -> None:
    reasons = {
        "DiesAlways": "its process was ended by SIGKILL (out of memory?)",
        "Hangs": "took longer than 20 s",
    }
    assert faults.recorder.failed == reasons
    failures = Store(faults.folder).failures().set_index("encoder")["reason"]
    assert failures.to_dict() == reasons


def test_a_broken_data_set_ends_the_grid_in_one_line(tmp_path: Path) -> None:
    config = config_of(GRID, tmp_path / "results")
    missing = Grid(**{**vars(GRID), "datasets": ("cifar10",), "data_dir": tmp_path / "nowhere"})
    broken = RunConfig(missing, config.results, "cpu", {"cifar10": "fingerprint"})
    with pytest.raises(CodingbenchError, match=r"nowhere|cifar10"):
        run_grid(broken, Processes(1), Recorder())


@pytest.mark.parametrize("executor", [InProcess(), Processes(2)], ids=["in process", "processes"])
def test_a_stop_ends_the_grid_within_its_cells_and_the_next_run_finishes_it(
    tmp_path: Path, executor: Executor, serial: dict[str, pd.DataFrame]
) -> None:
    stop, recorder = StopRequest(), Recorder()
    recorder.after_pulse = lambda: setattr(stop, "signal", 15)
    with pytest.raises(Interrupted):
        run_grid(config_of(GRID, tmp_path), executor, recorder, stop)
    assert len(Store(tmp_path).finished()) < 3
    outcome, _ = run(InProcess(), GRID, tmp_path)
    assert outcome.done + outcome.skipped == 3 and outcome.done > 0
    assert_same(tmp_path, serial)


def test_a_cell_held_by_another_run_is_waited_for_and_run_once_it_is_free(tmp_path: Path) -> None:
    config = config_of(Grid(**{**vars(GRID), "encoders": ("rate", "direct")}), tmp_path)
    (key,) = [key for key, job in config.jobs().items() if job.cell.encoder == "rate"]
    store, recorder = Store(tmp_path), Recorder()
    claim = store.claim(key)
    assert claim.__enter__()
    seen: list[str] = []

    def freed_after_the_other(self: float) -> None:
        seen.extend(recorder.done)
        claim.__exit__(None, None, None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", freed_after_the_other)
        outcome = run_grid(config, InProcess(), recorder)
    assert seen == ["direct"]  # the free cell came first
    assert recorder.done == ["direct", "rate"] and outcome == Outcome(done=2, skipped=0, failed=0)


def test_an_executor_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="unknown executor 'slrum'; did you mean 'slurm'"):
        ExecutorConfig("slrum")
