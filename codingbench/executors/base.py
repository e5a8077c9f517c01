"""A grid run by some executor: which cells are left, and how each of them ends."""

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from codingbench.cells.grid import Job
from codingbench.cells.run import CellListener, RunConfig
from codingbench.runtime.interrupts import StopRequest
from codingbench.store.folder import Store
from codingbench.training.checkpoint import CHECKPOINTS, Checkpoints
from codingbench.training.loop import Interrupted

_POLL_S = 1.0


@dataclass(frozen=True)
class CellOutcome:
    """How a cell ended: ``row`` is that of table ``cells``, ``reason`` why there is none.

    A cell that died took its process along, and may be tried again.
    """

    ending: Literal["done", "failed", "finished before", "held elsewhere", "died"]
    row: dict[str, Any] | None = None
    reason: str = ""


class GridListener(Protocol):
    """Hears what happens in a running grid."""

    def cell_skipped(self, job: Job) -> None:
        """The cell is finished, but not by this run."""

    def cell_started(self, job: Job) -> CellListener:
        """The cell's training begins; what hears of it."""

    def cell_done(self, job: Job, row: dict[str, Any]) -> None:
        """The cell is in the store; ``row`` is its row of table ``cells``."""

    def cell_failed(self, job: Job, key: str, reason: str) -> None:
        """The cell has no result; its reason is in the store."""


class Executor(Protocol):
    """Runs cells somewhere."""

    def run(
        self,
        config: RunConfig,
        jobs: Mapping[str, Job],
        listener: GridListener,
        stop: StopRequest,
    ) -> Iterator[tuple[str, CellOutcome]]:
        """Run the cells of ``jobs``, which are by key; yield each key and outcome as a cell ends.

        Raises:
            CodingbenchError: nothing more can be run: a data set is broken, or the store is.
            Interrupted: a stop was asked for; what can be resumed is in the checkpoints.
        """


@dataclass(frozen=True)
class Outcome:
    """How a grid ended."""

    done: int
    skipped: int  # were finished before, or by another run at the same time
    failed: int


def run_grid(
    config: RunConfig,
    executor: Executor,
    listener: GridListener,
    stop: StopRequest | None = None,
    jobs: Mapping[str, Job] | None = None,
) -> Outcome:
    """Run every cell of the grid that the store does not hold as finished.

    A failing cell is recorded with its reason and the others go on. Cells that another run on the
    same store is at are waited for, and run here should that run end without them.

    Args:
        config: the grid and how to run it.
        executor: what runs the cells.
        listener: is told what happens.
        stop: set from outside to end the run early.
        jobs: the jobs of ``config`` by key, if the grid has been expanded already.

    Raises:
        CodingbenchError: a data set is broken or the store cannot be written.
        Interrupted: a stop was requested.
    """
    stop = stop or StopRequest()
    store, jobs = Store(config.results), config.jobs() if jobs is None else jobs
    counts = {"done": 0, "skipped": 0, "failed": 0}
    finished = set() if config.force else store.finished()
    for key in jobs.keys() & finished:
        counts["skipped"] += 1
        listener.cell_skipped(jobs[key])
    waiting = [key for key in jobs if key not in finished]
    while waiting:
        held = []
        for key, report in executor.run(config, {k: jobs[k] for k in waiting}, listener, stop):
            if report.ending == "done" and report.row is not None:
                counts["done"] += 1
                listener.cell_done(jobs[key], report.row)
            elif report.ending == "failed":
                counts["failed"] += 1
                listener.cell_failed(jobs[key], key, report.reason)
            elif report.ending == "finished before":
                counts["skipped"] += 1
                listener.cell_skipped(jobs[key])
            else:
                held.append(key)
        waiting = _freed(store, held, stop)
    _clear_leftovers(store, jobs.keys())
    return Outcome(**counts)


def _clear_leftovers(store: Store, keys: Collection[str]) -> None:
    """Remove checkpoints of finished cells, which a run leaves that is killed after a commit."""
    folder = store.folder / CHECKPOINTS
    for name in sorted(path.name for path in folder.glob("*") if path.name in keys):
        with store.claim(name) as is_mine:
            if is_mine and store.is_finished(name):
                Checkpoints(folder, name).clear()


def _freed(store: Store, held: list[str], stop: StopRequest) -> list[str]:
    """Those that nobody holds any more, as soon as there are any."""
    while held:
        free = [key for key in held if _is_free(store, key)]
        if free:
            return free + [key for key in held if key not in free]
        if stop():
            raise Interrupted
        time.sleep(_POLL_S)
    return []


def _is_free(store: Store, key: str) -> bool:
    with store.claim(key) as is_mine:
        return is_mine
