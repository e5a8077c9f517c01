"""Running a grid by any executor: which cells are left, and what becomes of each."""

import signal
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from typing import Any, Final, Literal, Protocol

from codingbench.cells.grid import Job
from codingbench.cells.order import by_seed
from codingbench.cells.rows import failure_row
from codingbench.cells.run import CellListener, RunConfig
from codingbench.errors import CodingbenchError
from codingbench.executors.heartbeat import name_of
from codingbench.executors.limit import NO_LIMIT, TimeLimit
from codingbench.runtime.interrupts import StopRequest
from codingbench.store.folder import Store
from codingbench.store.progress import remove_grid, write_grid
from codingbench.training.checkpoint import CHECKPOINTS, Checkpoints
from codingbench.training.loop import Interrupted

_POLL_S = 1.0


@dataclass(frozen=True)
class CellOutcome:
    """The end of a cell: its result, or the reason why it has none.

    Args:
        ending: ``died`` means that the cell's process ended with it; the cell may be tried again.
            ``paused`` and ``not begun`` mean that its next epoch does not fit into the time limit.
        row: the row of table ``cells`` of a cell that is done.
        reason: why a cell has no result yet.
    """

    ending: Literal[
        "done", "failed", "finished before", "held elsewhere", "died", "paused", "not begun"
    ]
    row: dict[str, Any] | None = None
    reason: str = ""


NOT_BEGUN: Final = CellOutcome("not begun")


class GridListener(Protocol):
    """Receives what happens in a running grid."""

    def cell_skipped(self, job: Job) -> None:
        """The cell is finished, but was not run here."""

    def cell_started(self, job: Job) -> CellListener:
        """The cell's training begins; return the listener for its events."""

    def cell_done(self, job: Job, row: dict[str, Any]) -> None:
        """The cell is in the store; ``row`` is its row of table ``cells``."""

    def cell_failed(self, job: Job, key: str, reason: str) -> None:
        """The cell has no result; its reason is in the store."""

    def cell_paused(self, job: Job, reason: str) -> None:
        """The next epoch of the cell does not fit into the time limit."""


class Executor(Protocol):
    """Runs cells somewhere."""

    def run(
        self,
        config: RunConfig,
        jobs: Mapping[str, Job],
        listener: GridListener,
        stop: StopRequest,
    ) -> Iterator[tuple[str, CellOutcome]]:
        """Run the cells of ``jobs``, given by key; yield key and outcome of each as it ends.

        Raises:
            CodingbenchError: no more cells can be run, because a data set or the store is broken.
            Interrupted: ``stop`` was set; running cells have written checkpoints.
        """


@dataclass(frozen=True)
class Outcome:
    """Numbers of cells by how they ended.

    Skipped cells were finished by another run; cells that are left did not fit into a time limit.
    """

    done: int
    skipped: int
    failed: int
    left: int = 0


def run_grid(
    config: RunConfig,
    executor: Executor,
    listener: GridListener,
    stop: StopRequest | None = None,
    jobs: Mapping[str, Job] | None = None,
    limit: TimeLimit = NO_LIMIT,
) -> Outcome:
    """Run every cell of the grid that is not finished in the store, in the order of ``by_seed``.

    A failing cell is recorded with its reason and the others go on. Cells that another run holds
    at the moment are waited for, and are run here if that run ends without finishing them.

    Args:
        config: the grid and how to run it.
        executor: runs the cells.
        listener: receives what happens.
        stop: may be set to end the run early.
        jobs: the jobs of ``config`` by key, if the grid has been expanded already.
        limit: the time that the run may take; the executor has the same one.

    Raises:
        CodingbenchError: a data set is broken, the store cannot be written, or not even one epoch
            fits into the time limit.
        Interrupted: ``stop`` was set.
    """
    stop = stop or StopRequest()
    store, jobs = Store(config.results), config.jobs() if jobs is None else jobs
    finished = set() if config.force else store.finished()
    counts: Counter[str] = Counter()
    paused: list[str] = []
    for key in jobs.keys() & finished:
        counts["finished before"] += 1
        listener.cell_skipped(jobs[key])
    key_of = {job: key for key, job in jobs.items()}
    key_of = {job: key for key, job in jobs.items()}
    in_order = [key_of[job] for job in by_seed(jobs.values())]
    waiting = [key for key in in_order if key not in finished]
    grid = {key: name_of(job.cell) for key, job in jobs.items()}
    if waiting:
        write_grid(store.folder, grid)
    while waiting:
        held = []
        remaining = {key: jobs[key] for key in waiting}
        for key, outcome in executor.run(config, remaining, listener, stop):
            counts[outcome.ending] += 1
            if outcome.ending == "paused":
                paused.append(f"{jobs[key].cell}: {outcome.reason}")
            _announce(jobs[key], key, outcome, listener)
            if outcome.ending == "held elsewhere":
                held.append(key)
        waiting = _wait_until_free(store, held, stop, limit)
        counts["held to the end"] += len(held) - len(waiting)
    _clear_leftovers(store, jobs.keys())
    if jobs.keys() <= store.finished() | store.failed():
        remove_grid(store.folder, grid)
    _refuse_if_stuck(counts, paused, limit)
    return Outcome(
        done=counts["done"],
        skipped=counts["finished before"],
        failed=counts["failed"],
        left=counts["paused"] + counts["not begun"] + counts["held to the end"],
    )


def _refuse_if_stuck(counts: Counter[str], paused: list[str], limit: TimeLimit) -> None:
    """Refuse a time limit in which nothing happened: the same command would never get further.

    Raises:
        CodingbenchError: not one cell or epoch has ended, because none fits.
    """
    is_short = counts["paused"] + counts["not begun"] > 0
    if is_short and not (counts["done"] or counts["failed"] or limit.epochs):
        raise CodingbenchError(
            f"no epoch fits into the time limit of {limit.seconds:g} s; expected a longer one"
            + (f" ({paused[0]})" if paused else "")
        )


def _announce(job: Job, key: str, outcome: CellOutcome, listener: GridListener) -> None:
    if outcome.ending == "done" and outcome.row is not None:
        listener.cell_done(job, outcome.row)
    elif outcome.ending == "failed":
        listener.cell_failed(job, key, outcome.reason)
    elif outcome.ending == "finished before":
        listener.cell_skipped(job)
    elif outcome.ending == "paused":
        listener.cell_paused(job, outcome.reason)


def record_failure(
    store: Store, job: Job, key: str, reason: str, traceback: str = ""
) -> CellOutcome:
    """Write to the store why a cell has no result, and return that outcome.

    Raises:
        StoreError: the failure cannot be written.
    """
    store.record_failure(key, failure_row(job, key, reason, traceback, datetime.now(UTC)))
    return CellOutcome("failed", reason=reason)


def end_process(process: BaseProcess, grace_s: float = 0.0) -> None:
    """Wait until a process has ended, and kill it if that takes longer than ``grace_s``."""
    process.join(grace_s)
    if process.is_alive():
        process.kill()
        process.join()


def exit_reason(exitcode: int | None) -> str:
    """Describe how a process ended that should have gone on."""
    if exitcode is None or exitcode >= 0:
        return f"its process ended with status {exitcode}"
    name = signal.Signals(-exitcode).name
    hint = " (out of memory?)" if -exitcode == signal.SIGKILL else ""
    return f"its process was ended by {name}{hint}"


def _clear_leftovers(store: Store, keys: Collection[str]) -> None:
    """Remove checkpoints of finished cells; a run that is killed after a commit leaves them."""
    folder = store.folder / CHECKPOINTS
    for name in sorted(path.name for path in folder.glob("*") if path.name in keys):
        with store.claim(name) as is_mine:
            if is_mine and store.is_finished(name):
                Checkpoints(folder, name).clear()


def _wait_until_free(
    store: Store, held: list[str], stop: StopRequest, limit: TimeLimit
) -> list[str]:
    """Wait until another run has released one of the cells; return them, free ones first.

    When the time is up, none is returned.
    """
    while held and limit.left_s():
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
