"""Small grids, run in a process or by the command, and comparisons of their tables."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from codingbench.cells.grid import Grid, Job
from codingbench.cells.run import CellListener
from codingbench.executors.base import Outcome, run_grid
from codingbench.executors.local import InProcess
from codingbench.store.folder import RESULT_TABLES, Store
from codingbench.store.verification import verify
from tests.grids import DIFFERENT, config_of

Tables = dict[str, pa.Table]
"""The five tables of finished cells, by name, without the columns of ``DIFFERENT``."""

SHORT = Grid(
    encoders=("rate", "gac"),
    num_steps=(2,),
    backbones=("csnn[width=4]",),
    seeds=(0, 1),
    epochs=6,
    batch_size=10,
    train_samples=60,
    test_samples=30,
)
"""Four cells of about half a second each."""

LONG = Grid(**{**vars(SHORT), "encoders": ("rate", "direct"), "seeds": (0,), "epochs": 40})
"""Two cells long enough to be hit from outside at a known epoch."""


CODINGBENCH = (sys.executable, "-P", "-m", "codingbench")
"""The command, of the package that the tests import, whatever the current folder holds."""


class SilentListener:
    """A listener that ignores everything."""

    def cell_skipped(self, job: Job) -> None: ...
    def cell_paused(self, job: Job, reason: str) -> None: ...
    def cell_done(self, job: Job, row: dict[str, Any]) -> None: ...
    def cell_failed(self, job: Job, key: str, reason: str) -> None: ...
    def pulse(self, pulse: Any) -> None: ...
    def epoch_done(self, row: dict[str, Any]) -> None: ...
    def measuring(self, done: int, total: int) -> None: ...

    def cell_started(self, job: Job) -> CellListener:
        """Ignore the events of the cell, too."""
        return self


def run_here(grid: Grid, folder: Path) -> Outcome:
    """Run the grid in this process, one cell after another."""
    return run_grid(config_of(grid, folder), InProcess(), SilentListener())


def undisturbed(grid: Grid, folder: Path) -> Tables:
    """Run the grid without any fault; return its tables."""
    count = len(grid.expand())
    assert run_here(grid, folder) == Outcome(done=count, skipped=0, failed=0)
    tables = tables_of(Store(folder))
    assert all(len(pc.unique(table["key"])) == count for table in tables.values())
    return tables


def tables_of(store: Store, keys: set[str] | None = None) -> Tables:
    """Return the tables of all finished cells, or of those with the keys."""
    read = {name: store.read_table(name, keys) for name in ("cells", *RESULT_TABLES)}
    return {k: t.drop_columns(sorted(DIFFERENT & set(t.column_names))) for k, t in read.items()}


def assert_sound(folder: Path, whole: Tables, before: set[str] | None = None) -> set[str]:
    """Check that no finished cell was lost or damaged; return the keys of the finished cells.

    Those of ``before`` must be among them. Every cell must have the rows of an undisturbed run, to
    the last bit.
    """
    store = Store(folder)
    finished = store.finished()
    assert (before or set()) <= finished
    for name, table in tables_of(store, finished).items():
        expected = whole[name].filter(
            pc.is_in(whole[name]["key"], pa.array(sorted(finished), pa.string()))
        )
        differing = [c for c in expected.column_names if not table[c].equals(expected[c])]
        assert table.num_rows == expected.num_rows and not differing, (name, differing)
    if (folder / "steps").is_dir():  # without it nothing was committed, which verify refuses
        assert verify(store).bad == []
    return finished


def assert_complete(folder: Path, whole: Tables) -> None:
    """Check that all cells are finished, with the tables of an undisturbed run."""
    assert assert_sound(folder, whole) == set(whole["cells"]["key"].to_pylist())
    assert Store(folder).failed() == set()
    assert not list((folder / "checkpoints").glob("*/*"))


def command(grid: Grid, folder: Path, *options: str) -> list[str]:
    """Return the command that runs the grid with one thread per cell; options replace its own."""
    settings = {
        "encoders": ",".join(grid.encoders),
        "backbones": ",".join(grid.backbones),
        "T": ",".join(map(str, grid.num_steps)),
        "seeds": ",".join(map(str, grid.seeds)) + ",",
        "epochs": grid.epochs,
        "batch-size": grid.batch_size,
        "train-samples": grid.train_samples,
        "test-samples": grid.test_samples,
        "threads": 1,
        "results": folder,
    }
    given = {f"--{name}": str(value) for name, value in settings.items()}
    flags = [text for pair in given.items() if pair[0] not in options for text in pair]
    return [*CODINGBENCH, "run", *flags, *options]


def start(command: list[str], **settings: Any) -> subprocess.Popen[str]:
    """Start the command in a session of its own, with pipes for its output and messages."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **settings.pop("env", {})},
        **settings,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Wait up to ten minutes; return the exit status and the lines of the messages."""
    _, messages = process.communicate(timeout=600)
    return process.returncode, messages.splitlines()


def done_cells(messages: list[str]) -> list[str]:
    """Return the cells that a run reports as finished."""
    return [match[1] for line in messages if (match := re.search(r"\] done +(.*): accuracy", line))]
