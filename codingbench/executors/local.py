"""Cells run in this process."""

from collections.abc import Iterator, Mapping

from codingbench.cells.grid import Job
from codingbench.cells.run import RunConfig
from codingbench.executors.base import CellOutcome, GridListener
from codingbench.executors.worker import Worker
from codingbench.runtime.interrupts import StopRequest
from codingbench.training.loop import Interrupted


class InProcess:
    """Runs one cell after another in this process."""

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
            yield key, worker.run(key, listener.cell_started(job), stop)
