"""Cells run in this process."""

from collections.abc import Iterator, Mapping

from codingbench.cells.grid import Job
from codingbench.cells.run import RunConfig
from codingbench.executors.base import NOT_BEGUN, CellOutcome, GridListener
from codingbench.executors.limit import NO_LIMIT, TimeLimit
from codingbench.executors.worker import Worker
from codingbench.runtime.interrupts import StopRequest
from codingbench.training.loop import Interrupted


class InProcess:
    """Runs one cell after another in this process, as long as ``limit`` has time for them."""

    def __init__(self, limit: TimeLimit = NO_LIMIT) -> None:
        self.limit = limit

    def run(
        self,
        config: RunConfig,
        jobs: Mapping[str, Job],
        listener: GridListener,
        stop: StopRequest,
    ) -> Iterator[tuple[str, CellOutcome]]:
        """See :class:`codingbench.executors.base.Executor`."""
        worker = Worker(config, jobs)
        for key, job in jobs.items():
            if stop():
                raise Interrupted
            if not self.limit.admits(job):
                yield key, NOT_BEGUN
                continue
            cell = self.limit.learning(listener.cell_started(job), job)
            yield key, worker.run(key, cell, stop, self.limit.allowance(job))
