"""Cells as jobs of a SLURM array, through submitit."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from codingbench.cells.grid import Job
from codingbench.cells.run import RunConfig
from codingbench.errors import CodingbenchError, one_line
from codingbench.executors.base import CellOutcome, GridListener, record_failure
from codingbench.executors.events import EventRouter
from codingbench.executors.remote import outcome_of, run_cell
from codingbench.runtime.interrupts import StopRequest
from codingbench.store.folder import Store
from codingbench.training.loop import Interrupted

_POLL_S = 2.0
_DEFAULT_TIMEOUT_S = 24 * 3600.0
_WARNING_S = 90  # seconds between SLURM's warning signal and the end of a job


class OnSlurm:
    """Runs one job of a SLURM array per cell; this process waits and reports what has ended.

    Args:
        at_once: number of the array's jobs that run at the same time.
        timeout_s: seconds that a cell may take, rounded up to SLURM's minutes; None: 24 hours.
        options: further parameters of submitit's executor, such as ``slurm_partition``; they
            override ours. Text that is a number, ``true`` or ``false`` is converted.
        cluster: ``slurm``; submitit's ``local`` and ``debug`` run the jobs on this machine.
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
        store, router = Store(config.results), EventRouter(listener, jobs)
        submitted = dict(zip(jobs, self._submitted(config, list(jobs)), strict=True))
        try:
            while submitted:
                if stop():
                    raise Interrupted
                for key, job in list(submitted.items()):
                    if job.done():
                        del submitted[key]
                        router.end(key)
                        yield key, _outcome(job, store, jobs[key], key)
                    elif not router.has_begun(key) and job.state == "RUNNING":
                        router.receive(key, "began")
                time.sleep(_POLL_S if submitted else 0)
        finally:
            for job in submitted.values():
                job.cancel()

    def _submitted(self, config: RunConfig, keys: Sequence[str]) -> list[Any]:
        try:
            import submitit
        except ImportError:
            raise CodingbenchError(
                "the executor 'slurm' needs submitit: pip install 'codingbench[slurm]'"
            ) from None
        parameters = self._parameters(config) | {k: _typed(k, v) for k, v in self.options.items()}
        try:
            executor = submitit.AutoExecutor(config.results / ".slurm", cluster=self.cluster)
            executor.update_parameters(**parameters)
            submitted: list[Any] = executor.map_array(run_cell, [config] * len(keys), keys)
        except (AssertionError, NameError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise CodingbenchError(f"cannot submit to {self.cluster}: {one_line(error)}") from None
        return submitted

    def _parameters(self, config: RunConfig) -> dict[str, Any]:
        seconds = (self.timeout_s or _DEFAULT_TIMEOUT_S) + _WARNING_S
        return {
            "name": "codingbench",
            "cpus_per_task": config.threads,
            # clusters without GPUs refuse even a request for 0
            "gpus_per_node": config.devices if config.device.startswith("cuda") else None,
            "timeout_min": math.ceil(seconds / 60),
            "slurm_signal_delay_s": _WARNING_S,
            "slurm_array_parallelism": self.at_once,
        }


def _typed(name: str, value: Any) -> Any:
    """Convert text to the type that submitit expects.

    >>> _typed("cpus_per_task", "4"), _typed("slurm_account", "010"), _typed("mem_gb", "1.5")
    (4, '010', 1.5)
    """
    if not isinstance(value, str):
        return value
    if name in ("slurm_setup", "slurm_teardown"):  # lists of shell commands
        return [value]
    if name == "slurm_srun_args":
        return value.split()
    if value in ("true", "false"):
        return value == "true"
    for number in (int, float):
        try:
            if str(number(value)) == value:  # otherwise SLURM would get a different text
                return number(value)
        except ValueError:
            continue
    return value


def _outcome(submitted: Any, store: Store, job: Job, key: str) -> CellOutcome:
    if submitted.exception() is None:
        return outcome_of(submitted.result())
    messages = [line for line in (submitted.stderr() or "").splitlines() if line.strip()]
    reason = f"its job ended ({submitted.state}) without a result"
    if messages:
        reason += f": {messages[-1].strip()}"
    return record_failure(store, job, key, reason[:500])
