"""Configuration of an executor, which creates the executor."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from codingbench.cells.grid import Job
from codingbench.errors import SpecError, unknown
from codingbench.plugins.specs import split_list

if TYPE_CHECKING:
    import torch

    from codingbench.executors.base import Executor
    from codingbench.executors.limit import TimeLimit

EXECUTORS = ("local", "ray", "slurm")
_RAY_RETRIES = 3
_MOST_ARRAY_JOBS = 256  # jobs of a SLURM array that run at the same time


LOG_NAMES: Final = ("csv", "tensorboard")
"""The logs of ``--log``; see :mod:`codingbench.executors.logs`."""


@dataclass(frozen=True)
class ExecutorConfig:
    """The executor of a run and its options.

    Args:
        name: one of ``EXECUTORS``.
        timeout_s: seconds after which a cell has failed, on this machine and on SLURM.
        retries: how often a cell is tried again whose process died; None: 0 on this machine, 3 on
            Ray, where machines may be lost.
        ray_address: address of a Ray cluster; None: Ray on this machine.
        gpus: GPUs of each cell on Ray; 0.5 lets two cells share one.
        slurm: further parameters of submitit's executor.

    Raises:
        SpecError: there is no such executor, or an option has no effect on it.
    """

    name: str = "local"
    timeout_s: float | None = None
    retries: int | None = None
    ray_address: str | None = None
    gpus: float = 0.0
    slurm: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in EXECUTORS:
            raise SpecError(unknown("executor", self.name, EXECUTORS))
        if self.name == "ray" and self.timeout_s:
            raise SpecError("--timeout has no effect on Ray; use the executor local or slurm")

    def pack(
        self,
        jobs: Sequence[Job],
        device: "torch.device",
        workers: int | None,
        threads: int | None,
        devices: int = 1,
    ) -> tuple[int, int]:
        """Return the number of cells at a time, and of threads for each.

        On Ray and SLURM the machines are not known, so only what is requested counts there.

        Raises:
            SpecError: there are fewer than ``devices`` devices.
        """
        if self.name == "ray" and devices > 1:
            raise SpecError(
                f"a cell on Ray has one device, got --devices {devices}; use the executor local "
                "or slurm"
            )
        if self.name == "local":
            from codingbench.executors.packing import pack
            from codingbench.runtime.devices import devices_from

            devices_from(device, devices * (workers or 1) if devices > 1 else 1)
            return pack(jobs, device, workers, threads, devices)
        return workers or _MOST_ARRAY_JOBS, threads or devices

    def runs_here(self, workers: int) -> bool:
        """Return whether the cells run in this process."""
        return self.name == "local" and workers == 1 and not self.timeout_s

    def check_time_limit(self, devices: int) -> None:
        """Check that cells of this executor, on so many devices each, can have a time limit.

        Raises:
            SpecError: they cannot.
        """
        if self.name != "local":
            raise SpecError(
                f"--time-limit has no effect on {self.name}, whose jobs start when there is room; "
                "use the executor local"
            )
        if devices > 1:
            raise SpecError(f"--time-limit needs cells on one device, got --devices {devices}")

    def executor(self, workers: int, limit: "TimeLimit | None" = None) -> "Executor":
        """Create the executor for ``workers`` cells at a time, within a time limit."""
        if self.name == "ray":
            from codingbench.executors.ray import OnRay

            retries = _RAY_RETRIES if self.retries is None else self.retries
            return OnRay(self.ray_address, self.gpus, retries)
        if self.name == "slurm":
            from codingbench.executors.slurm import OnSlurm

            return OnSlurm(workers, self.timeout_s, self.slurm)
        from codingbench.executors.limit import NO_LIMIT
        from codingbench.executors.local import InProcess
        from codingbench.executors.processes import Processes

        limit = limit or NO_LIMIT
        if self.runs_here(workers):
            return InProcess(limit)
        return Processes(workers, self.timeout_s, self.retries or 0, limit)


def log_names(text: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the requested logs, each once.

    Raises:
        SpecError: there is no such log, or the package tensorboard is missing.
    """
    listed = split_list(text) if isinstance(text, str) else text or ()
    for name in listed:
        if name not in LOG_NAMES:
            raise SpecError(unknown("log", name, LOG_NAMES))
    if "tensorboard" in listed and importlib.util.find_spec("tensorboard") is None:
        raise SpecError("--log tensorboard needs the package tensorboard: pip install tensorboard")
    return tuple(dict.fromkeys(listed))
