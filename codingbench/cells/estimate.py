"""Estimate of a grid's time: one training step of each kind of cell is timed and multiplied."""

import time
from collections.abc import Callable, Sequence

import torch

from codingbench.backbone import move_network
from codingbench.cells.grid import Cell, Job
from codingbench.cells.network import network_of
from codingbench.errors import SpecError, one_line
from codingbench.training.evaluation import autocast, stream

_TIMED_IMAGES = 32  # at most
_MOST_TIMED = 12  # kinds of cells; the others are assumed to take as long per image and step
_MOST_SECONDS = 20.0  # after which no further kind of cell is timed
_SLOW_SECONDS = 5.0  # after which no further step of a kind is timed
_EVALUATION_SHARE = 0.4  # time of an evaluated and counted image, in units of a trained one

Kind = tuple[str, str, str, int]
"""Data set, encoder, backbone and T."""


def estimate_seconds(
    jobs: Sequence[Job],
    device: torch.device,
    timing: Callable[[int, int, Cell], None] = lambda number, total, cell: None,
) -> dict[Cell, float]:
    """Estimate the seconds of each cell, from training steps on a few random images.

    Steps are timed for about 20 seconds in all. Kinds of cells that are left then are assumed to
    take as long per image and time step as those that were timed.

    The estimate is somewhat too long: large batches take less time per image than small ones.

    Args:
        jobs: the cells.
        device: where they will run.
        timing: called before each kind of cell is timed, with its number, counted from 1, the
            number of kinds and a cell of that kind.

    Raises:
        SpecError: a cell cannot be trained because its plug-ins fail on the images.
    """
    per_image: dict[Kind, float] = {}
    deadline = time.perf_counter() + _MOST_SECONDS
    total = min(len({_kind(job.cell) for job in jobs}), _MOST_TIMED)
    for job in jobs:
        kind = _kind(job.cell)
        is_late = bool(per_image) and time.perf_counter() > deadline
        if kind not in per_image and len(per_image) < _MOST_TIMED and not is_late:
            timing(len(per_image) + 1, total, job.cell)
            try:
                per_image[kind] = _seconds_per_image(job, device)
            except Exception as error:
                raise SpecError(f"{job.cell}: {one_line(error)}") from error
    typical = sum(s / kind[3] for kind, s in per_image.items()) / len(per_image)
    return {
        job.cell: _images(job) * per_image.get(_kind(job.cell), typical * job.cell.num_steps)
        for job in jobs
    }


def _kind(cell: Cell) -> Kind:
    return cell.dataset, cell.encoder, cell.network, cell.num_steps


def _images(job: Job) -> float:
    """Return the cell's work as a number of trained images."""
    return job.cell.epochs * _images_of_epoch(job) + _EVALUATION_SHARE * job.cell.test_samples


def _images_of_epoch(job: Job) -> float:
    held = job.recipe.val_fraction
    return job.cell.train_samples * (1 - held + _EVALUATION_SHARE * held)


def measurement_epochs(job: Job) -> float:
    """Estimate the time of a cell's final measurement, as a multiple of an epoch's.

    The test images are evaluated twice, with the last weights and with those that validation
    selects.
    """
    return 2 * _EVALUATION_SHARE * job.cell.test_samples / _images_of_epoch(job)


def epoch_seconds(job: Job, device: torch.device) -> float:
    """Estimate the seconds of an epoch, validation included, from a training step that is timed.

    The global random generators are left as they were.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return _images_of_epoch(job) * _seconds_per_image(job, device)


def _seconds_per_image(job: Job, device: torch.device) -> float:
    """Time a training step per image."""
    precision = job.cell.precision
    network = move_network(network_of(job, seed=0), device, precision)
    count = job.cell.micro_batch
    if device.type != "cuda":  # a GPU takes as long for few images as for many
        count = min(count, _TIMED_IMAGES)
    images = torch.rand(count, *job.info.shape, device=device)
    draws = stream(0, "estimate", device)

    def step() -> None:
        with autocast(device, precision):
            logits = network(images, draws)
        logits.sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return _fastest_s(step, compiles=device.type == "cuda") / count


def _fastest_s(step: Callable[[], None], *, compiles: bool) -> float:
    """Return the seconds of the faster of two steps, after one to warm up.

    A slow step runs fewer times, down to the first alone. One that compiles its kernels when it
    first runs says nothing by that time, and runs twice at least.
    """
    times: list[float] = []
    for _ in range(3):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
        if sum(times[1:] if compiles else times) > _SLOW_SECONDS:
            break
    return min(times[1:] or times)
