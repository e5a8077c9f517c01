"""A small grid, executors that run it, and comparisons of what they report and store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from codingbench.cells.data import find_sources
from codingbench.cells.grid import Grid, Job
from codingbench.cells.run import RunConfig
from codingbench.executors.base import Executor, Outcome, run_grid
from codingbench.schema import TABLES
from codingbench.store.folder import Store

GRID = Grid(
    encoders=("gac", "rate", "direct"),
    num_steps=(2,),
    backbones=("csnn[width=4]",),
    epochs=1,
    train_samples=120,
    test_samples=60,
)
DIFFERENT = {
    "wall_s",
    "train_wall_s",
    "images_per_s",
    "peak_memory_mb",
    "started_at",
    "finished_at",
}

FAULTY = """
import os, signal, time
from pathlib import Path
from codingbench.encoders.direct import DirectEncoder

class Faulty(DirectEncoder):
    good_at = 2  # number of the try that succeeds

    def encode(self, features):
        if len(features) > 1:  # a batch, not a look at one image
            tries = Path(__file__).with_name(type(self).__name__)
            if not hasattr(self, "tried"):
                self.tried = True
                with tries.open("a") as file:
                    file.write("x")
            if len(tries.read_text()) < self.good_at:
                self.fail()
        return super().encode(features)

    def fail(self):
        os.kill(os.getpid(), signal.SIGKILL)

class DiesOnce(Faulty):
    pass

class DiesAlways(Faulty):
    good_at = 100

class Hangs(DiesAlways):
    def fail(self):
        time.sleep(3600)
"""


class Recorder:
    """A listener that keeps what a grid reports."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.done: list[str] = []
        self.skipped: list[str] = []
        self.paused: list[str] = []
        self.failed: dict[str, str] = {}
        self.pulses = 0
        self.after_pulse: Callable[[], None] = lambda: None

    def cell_started(self, job: Job) -> "Recorder":
        self.started.append(job.cell.encoder)
        return self

    def cell_skipped(self, job: Job) -> None:
        self.skipped.append(job.cell.encoder)

    def cell_paused(self, job: Job, reason: str) -> None:
        assert reason.startswith("its next epoch needs about ")
        self.paused.append(job.cell.encoder)

    def cell_done(self, job: Job, row: dict[str, Any]) -> None:
        assert row["encoder"] == job.cell.encoder
        self.done.append(job.cell.encoder)

    def cell_failed(self, job: Job, key: str, reason: str) -> None:
        self.failed[job.cell.encoder] = reason

    def pulse(self, pulse: Any) -> None:
        self.pulses += 1
        self.after_pulse()

    def epoch_done(self, row: dict[str, Any]) -> None: ...
    def measuring(self, done: int, total: int) -> None: ...


def config_of(grid: Grid, folder: Path) -> RunConfig:
    fingerprints = {k: s.fingerprint() for k, s in find_sources(grid.expand(), None).items()}
    return RunConfig(grid, folder, "cpu", fingerprints)


def run(executor: Executor, grid: Grid, folder: Path) -> tuple[Outcome, Recorder]:
    recorder = Recorder()
    return run_grid(config_of(grid, folder), executor, recorder), recorder


def numbers(folder: Path) -> dict[str, pd.DataFrame]:
    """Return all tables without the columns about time and memory."""
    tables = {}
    for name in TABLES:
        if name != "failures":
            frame = Store(folder).read(name)
            tables[name] = frame.drop(columns=sorted(DIFFERENT & set(frame.columns)))
    return tables


def assert_same(folder: Path, serial: dict[str, pd.DataFrame]) -> None:
    for name, frame in numbers(folder).items():
        pd.testing.assert_frame_equal(frame, serial[name])
