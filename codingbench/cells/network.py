"""Networks of jobs: building them, grouping jobs by their size, refusing what cannot be built."""

from collections.abc import Iterator, Sequence

import torch

from codingbench.backbone import Network, build_network
from codingbench.cells.grid import Job
from codingbench.datasets import DatasetInfo
from codingbench.encoder import Task
from codingbench.errors import SpecError, one_line
from codingbench.training.evaluation import stream
from codingbench.training.splits import held_out_count, smallest_piece


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
    initial = job.cell.seed if seed is None else seed
    return build_network(job.encoder, job.backbone, task, initial, job.neuron)


def by_kind(jobs: Sequence[Job]) -> list[list[Job]]:
    """Group jobs of equal plug-ins, T, data set and batch, whose networks have the same size."""
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        cell = job.cell
        network = cell.encoder, cell.backbone, cell.neuron, cell.num_steps, cell.dataset
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
            plugins = f"{cell.encoder} on {cell.network} at T={cell.num_steps}"
            raise SpecError(f"{plugins}: {one_line(error)}") from error
        except Exception:
            continue  # an error of the plug-in, not of the request: its cells fail


def check_smallest_batches(jobs: Sequence[Job]) -> None:
    """Refuse cells that would train on a single image where the network needs several.

    Batch normalisation has no variance of one value per channel. It gets one where a batch or its
    rest is a single image and a layer's maps are 1x1, which depends on backbone, images and T.

    Raises:
        SpecError: a network cannot be trained on the smallest batch of its cell.
    """
    for job, *_ in by_kind(list(_with_single_images(jobs))):
        if _refuses_single_images(job):
            cell = job.cell
            raise SpecError(
                f"{cell.encoder} on {cell.network} at T={cell.num_steps}: the last batch of an "
                f"epoch has one image, and batch normalisation needs more than one value per "
                f"channel; choose another batch size than {cell.batch_size}, or another number of "
                f"training images than {cell.train_samples}"
            )


def _with_single_images(jobs: Sequence[Job]) -> Iterator[Job]:
    for job in jobs:
        cell = job.cell
        kept = cell.train_samples - held_out_count(cell.train_samples, job.recipe.val_fraction)
        if smallest_piece(kept, cell.batch_size, cell.micro_batch) == 1:
            yield job


def _refuses_single_images(job: Job) -> bool:
    """Return whether the network of a job cannot be trained on one image, by training on one."""
    with torch.random.fork_rng(devices=[]):
        network = network_of(job, seed=0).train()
        images = torch.rand(1, *job.info.shape, generator=torch.Generator().manual_seed(0))
        try:
            network(images, stream(0, "encoder", images.device))
        except ValueError as error:
            return "more than 1 value per channel" in str(error)
        except Exception:
            return False  # an error of the plug-in, not of the request: its cells fail
    return False
