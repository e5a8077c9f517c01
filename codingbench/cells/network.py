"""Networks of jobs: building them, grouping jobs by their size, refusing what cannot be built."""

from collections.abc import Sequence

from codingbench.backbone import Network, build_network
from codingbench.cells.grid import Job
from codingbench.datasets import DatasetInfo
from codingbench.encoder import Task
from codingbench.errors import SpecError, one_line


def task_of(info: DatasetInfo, num_steps: int) -> Task:
    """Return the classification task of a data set with ``num_steps`` time steps."""
    return Task(
        num_steps, info.num_classes, info.channels, info.height, info.width, info.mean, info.std
    )


def network_of(job: Job, seed: int | None = None) -> Network:
    """Build the network of the job's cell with its initial weights.

    Args:
        seed: of the initial weights; None: the cell's.

    Raises:
        ValueError: a plug-in refuses the task or one of its parameters.
    """
    task = task_of(job.info, job.cell.num_steps)
    return build_network(job.encoder, job.backbone, task, job.cell.seed if seed is None else seed)


def by_kind(jobs: Sequence[Job]) -> list[list[Job]]:
    """Group jobs of equal plug-ins, T, data set and batch, whose networks have the same size."""
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        cell = job.cell
        network = cell.encoder, cell.backbone, cell.num_steps, cell.dataset
        groups.setdefault((*network, cell.micro_batch), []).append(job)
    return list(groups.values())


def check_plugins(jobs: Sequence[Job]) -> None:
    """Build each kind of network once, so that a refused parameter ends the run early.

    Raises:
        SpecError: a plug-in refuses its parameters, T, or the images.
    """
    for job, *_ in by_kind(jobs):
        try:
            network_of(job, seed=0)
        except ValueError as error:
            cell = job.cell
            plugins = f"{cell.encoder} on {cell.backbone} at T={cell.num_steps}"
            raise SpecError(f"{plugins}: {one_line(error)}") from error
        except Exception:
            continue  # an error of the plug-in, not of the request: its cells fail
