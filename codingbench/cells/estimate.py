"""How long a grid will take: a training step of each kind of cell is timed, then multiplied."""

import time
from collections.abc import Mapping, Sequence

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from codingbench.cells.grid import Cell, Job
from codingbench.cells.network import network_of
from codingbench.errors import SpecError, one_line
from codingbench.training.loop import stream

_TIMED_IMAGES = 8
_MOST_TIMED = 12  # kinds of cells; further ones are taken to cost as much per image and step
_EVALUATION_SHARE = 0.4  # an evaluated and counted image, in units of a trained one

Kind = tuple[str, str, str, int]


def estimate_seconds(jobs: Sequence[Job], device: torch.device) -> dict[Cell, float]:
    """Seconds of each cell, from a training step on a few random images on ``device``.

    A guess: large batches are somewhat faster per image than the few that are timed.

    Raises:
        SpecError: a cell cannot be trained, its plug-ins fail on the images.
    """
    per_image: dict[Kind, float] = {}
    for job in jobs:
        kind = _kind(job.cell)
        if kind not in per_image and len(per_image) < _MOST_TIMED:
            try:
                per_image[kind] = _seconds_per_image(job, device)
            except Exception as error:
                raise SpecError(f"{job.cell}: {one_line(error)}") from error
    typical = sum(s / kind[3] for kind, s in per_image.items()) / len(per_image)
    return {
        job.cell: _images(job) * per_image.get(_kind(job.cell), typical * job.cell.num_steps)
        for job in jobs
    }


def render_plan(
    jobs: Sequence[Job],
    seconds: Mapping[Cell, float],
    device: torch.device,
    most: int = 200,
    finished: int = 0,
) -> Group:
    """A table of the cells with their estimated times, and the sum.

    ``finished`` is how many further cells will not be run again.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("data set", "encoder", "backbone", "T", "recipe", "epochs", "images", "seed"):
        table.add_column(heading, overflow="fold")
    table.add_column("time", justify="right")
    for job in jobs[:most]:
        cell = job.cell
        texts = (
            cell.dataset,
            cell.encoder,
            cell.backbone,
            cell.num_steps,
            cell.recipe,
            cell.epochs,
            f"{cell.train_samples:,}",
            cell.seed,
            duration(seconds[cell]),
        )
        table.add_row(*(Text(str(text)) for text in texts))
    left_out = f" ({len(jobs) - most} not shown)" if len(jobs) > most else ""
    total = duration(sum(seconds[job.cell] for job in jobs))
    before = f"; {finished} more finished before" if finished else ""
    sum_up = f"{len(jobs)} cells{left_out}, about {total} on {device.type}{before}"
    return Group(*([table] if jobs else []), Text(sum_up))


def duration(seconds: float) -> str:
    """Two units at most: 42 s, 3 min, 2 h 5 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _kind(cell: Cell) -> Kind:
    return cell.dataset, cell.encoder, cell.backbone, cell.num_steps


def _images(job: Job) -> float:
    """How many trained images the cell's work amounts to."""
    cell, held = job.cell, job.recipe.val_fraction
    trained = cell.epochs * cell.train_samples * (1 - held + _EVALUATION_SHARE * held)
    return trained + _EVALUATION_SHARE * cell.test_samples


def _seconds_per_image(job: Job, device: torch.device) -> float:
    """The faster of two training steps, after one to warm up."""
    network = network_of(job, seed=0).to(device)
    images = torch.rand(_TIMED_IMAGES, *job.info.shape, device=device)
    draws, times = stream(0, "estimate", device), []
    for _ in range(3):
        started = time.perf_counter()
        network(images, draws).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:]) / _TIMED_IMAGES
