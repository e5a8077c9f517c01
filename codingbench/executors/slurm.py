"""Cells as jobs of a SLURM array, through submitit."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from codingbench.cells.grid import Job
from codingbench.cells.run import RunConfig
from codingbench.errors import CodingbenchError, one_line
from codingbench.executors.base import CellOutcome, GridListener
from codingbench.executors.remote import EventRouter, opened, run_cell
from codingbench.executors.worker import Worker
from codingbench.runtime.interrupts import StopRequest
from codingbench.training.loop import Interrupted

_POLL_S = 2.0
_DEFAULT_TIMEOUT_S = 24 * 3600.0
_WARNED_BEFORE_S = 90  # SLURM sends submitit's signal so long before it ends a job


class OnSlurm:
    """One array job per cell; this process waits and tells what ended.

    Args:
        at_once: how many jobs of the array run at a time.
        timeout_s: that a cell may take, rounded up to SLURM's minutes.
        options: further parameters of submitit's executor, ``slurm_partition`` say, which win.
            Text that reads as a number or as ``true`` and ``false`` is one.
        cluster: ``slurm``; submitit's ``local`` and ``debug`` run the jobs here.
    """

    def __init__(
        self,
        at_once: int,
        timeout_s: float | None,
        options: Mapping[str, Any],
        cluster: str = "slurm",
    ) -> None:
        self.at_once, self.timeout_s = at_once, timeout_s
        self.options, self.cluster = options, cluster

    def run(
        self,
        config: RunConfig,
        jobs: Mapping[str, Job],
        listener: GridListener,
        stop: StopRequest,
    ) -> Iterator[tuple[str, CellOutcome]]:
        """See :class:`codingbench.executors.base.Executor`."""
        book = Worker(config, jobs)
        audience = EventRouter(listener, jobs)
        submitted = dict(zip(jobs, self._submitted(config, list(jobs)), strict=True))
        try:
            while submitted:
                if stop():
                    raise Interrupted
                for key, job in list(submitted.items()):
                    if job.done():
                        del submitted[key]
                        audience.end(key)
                        yield key, _report(job, key, book)
                    elif not audience.has_begun(key) and job.state == "RUNNING":
                        audience.hear(key, "began")
                time.sleep(_POLL_S if submitted else 0)
        finally:
            for job in submitted.values():
                job.cancel()

    def _submitted(self, order: RunConfig, keys: Sequence[str]) -> list[Any]:
        try:
            import submitit
        except ImportError:
            raise CodingbenchError(
                "the executor 'slurm' needs submitit: pip install 'codingbench[slurm]'"
            ) from None
        parameters = self._parameters(order) | {k: _typed(k, v) for k, v in self.options.items()}
        try:
            executor = submitit.AutoExecutor(order.results / ".slurm", cluster=self.cluster)
            executor.update_parameters(**parameters)
            submitted: list[Any] = executor.map_array(run_cell, [order] * len(keys), keys)
        except (AssertionError, NameError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise CodingbenchError(f"cannot submit to {self.cluster}: {one_line(error)}") from None
        return submitted

    def _parameters(self, order: RunConfig) -> dict[str, Any]:
        seconds = (self.timeout_s or _DEFAULT_TIMEOUT_S) + _WARNED_BEFORE_S
        return {
            "name": "codingbench",
            "cpus_per_task": order.threads,
            # clusters without GPUs refuse even a request for none
            "gpus_per_node": order.devices if order.device.startswith("cuda") else None,
            "timeout_min": math.ceil(seconds / 60),
            "slurm_signal_delay_s": _WARNED_BEFORE_S,
            "slurm_array_parallelism": self.at_once,
        }


def _typed(name: str, value: Any) -> Any:
    """Text as submitit wants it.

    >>> _typed("cpus_per_task", "4"), _typed("slurm_account", "010"), _typed("mem_gb", "1.5")
    (4, '010', 1.5)
    """
    if not isinstance(value, str):
        return value
    if name in ("slurm_setup", "slurm_teardown"):  # lines of the shell
        return [value]
    if name == "slurm_srun_args":
        return value.split()
    if value in ("true", "false"):
        return value == "true"
    for number in (int, float):
        try:
            if str(number(value)) == value:  # else it would reach SLURM as another text
                return number(value)
        except ValueError:
            continue
    return value


def _report(job: Any, key: str, book: Worker) -> CellOutcome:
    if job.exception() is None:
        return opened(job.result())
    said = [line for line in (job.stderr() or "").splitlines() if line.strip()]
    reason = f"its job ended ({job.state}) without a result"
    if said:
        reason += f": {said[-1].strip()}"
    return book.record_failure(key, reason[:500])
