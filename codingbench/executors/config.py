"""From ``--executor`` to what runs the cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from codingbench.cells.grid import Job
from codingbench.errors import SpecError, unknown

if TYPE_CHECKING:
    import torch

    from codingbench.executors.base import Executor

EXECUTORS = ("local", "ray", "slurm")
_RAY_RETRIES = 3
_AT_ONCE = 256  # jobs of a SLURM array


@dataclass(frozen=True)
class ExecutorConfig:
    """What was asked for.

    Args:
        name: one of ``EXECUTORS``.
        timeout_s: that a cell may take, on this machine and on SLURM.
        retries: of a cell whose process died; None: 0 here, 3 on Ray, which loses machines.
        ray_address: of a Ray cluster.
        gpus: of a cell on Ray.
        slurm: further parameters of submitit's executor.
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
            raise SpecError("--timeout has no effect on Ray: expected the executor local or slurm")

    def pack(
        self,
        jobs: Sequence[Job],
        device: "torch.device",
        workers: int | None,
        threads: int | None,
        devices: int = 1,
    ) -> tuple[int, int]:
        """Cells at a time and threads of each; elsewhere than here, machines are not known.

        Raises:
            SpecError: a cell cannot have so many devices.
        """
        if self.name == "ray" and devices > 1:
            raise SpecError(
                "a cell on Ray has one device: expected the executor local or slurm for "
                f"{devices} devices"
            )
        if self.name == "local":
            from codingbench.executors.packing import pack
            from codingbench.runtime.devices import devices_from

            devices_from(device, devices * (workers or 1) if devices > 1 else 1)
            return pack(jobs, device, workers, threads, devices)
        return workers or _AT_ONCE, threads or devices

    def executor(self, workers: int) -> "Executor":
        """For so many cells at a time."""
        if self.name == "ray":
            from codingbench.executors.ray import OnRay

            retries = _RAY_RETRIES if self.retries is None else self.retries
            return OnRay(self.ray_address, self.gpus, retries)
        if self.name == "slurm":
            from codingbench.executors.slurm import OnSlurm

            return OnSlurm(workers, self.timeout_s, self.slurm)
        from codingbench.executors.local import InProcess, Processes

        if workers > 1 or self.timeout_s:
            return Processes(workers, self.timeout_s, self.retries or 0)
        return InProcess()
