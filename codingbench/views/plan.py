"""The plan of a run as text: its cells with their estimated times."""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import torch
from rich.console import Group, RenderableType
from rich.text import Text

from codingbench.cells.grid import Cell, Job
from codingbench.registry import DEFAULT_NEURON
from codingbench.runtime.formatting import counted, duration
from codingbench.views.table import Column, neuron_column, rich_table

_ENCODER: Final = Column("encoder", lambda cell: cell.encoder, is_number=False, is_key=True)
_CONDITIONS: Final[tuple[tuple[Column, Callable[[Cell], str]], ...]] = (
    (Column("data set", lambda cell: cell.dataset, is_number=False), lambda cell: cell.dataset),
    (
        Column("backbone", lambda cell: cell.backbone, is_number=False),
        lambda cell: f"backbone {cell.backbone}",
    ),
    (
        neuron_column(),
        lambda cell: "" if cell.neuron == DEFAULT_NEURON else f"neuron {cell.neuron}",
    ),
    (
        Column("recipe", lambda cell: cell.recipe, is_number=False),
        lambda cell: f"recipe {cell.recipe}",
    ),
    (Column("epochs", lambda cell: str(cell.epochs)), lambda cell: counted(cell.epochs, "epoch")),
    (
        Column("images", lambda cell: f"{cell.train_samples:,}"),
        lambda cell: f"{cell.train_samples:,} training images",
    ),
)
"""The columns that are left out where all cells agree, each with the words that stand above."""
_RUN: Final = (
    Column("T", lambda cell: str(cell.num_steps), is_key=True),
    Column("seed", lambda cell: str(cell.seed), is_key=True),
)


def render_plan(
    jobs: Sequence[Job],
    seconds: Mapping[Cell, float],
    device: torch.device,
    most: int = 200,
    finished: int = 0,
    workers: int = 1,
) -> Group:
    """Return a table of the cells with their estimated times, and the time of all below it.

    Above it is what all cells have in common.

    Args:
        jobs: the cells that will be run.
        seconds: the estimated time of each.
        device: where they will run.
        most: the number of cells that the table lists at most; the total time is that of all cells.
        finished: the number of further cells, which will not be run again.
        workers: the number of cells that run at a time.
    """
    hidden = f" ({len(jobs) - most} not shown)" if len(jobs) > most else ""
    workers = max(1, min(workers, len(jobs)))
    total = duration(_elapsed_s([seconds[job.cell] for job in jobs], workers))
    where = f"{device.type}, {workers} at a time" if workers > 1 else device.type
    others = f"; {finished} more finished before" if finished else ""
    summary = Text(f"{counted(len(jobs), 'cell')}{hidden}, about {total} on {where}{others}")
    return Group(*_tables(jobs, jobs[:most], seconds), summary) if jobs else Group(summary)


def _elapsed_s(seconds: Sequence[float], workers: int) -> float:
    """Return when the last cell ends, if each worker takes the next one as soon as it is free."""
    ends = [0.0] * workers
    for cell_s in seconds:
        heapq.heapreplace(ends, ends[0] + cell_s)
    return max(ends)


def _tables(
    jobs: Sequence[Job], listed: Sequence[Job], seconds: Mapping[Cell, float]
) -> Iterator[RenderableType]:
    """Yield what all cells have in common, and a table of the rest, in which names have room."""
    differing, shared = [], []
    for column, words in _CONDITIONS:
        values = {column.text(job.cell) for job in jobs}
        if len(values) > 1:
            differing.append(column)
        else:
            shared.append(words(jobs[0].cell))
    if shared:
        yield Text(", ".join(filter(None, shared)), style="dim")
    time = Column("time", lambda cell: duration(seconds[cell]))
    yield rich_table([job.cell for job in listed], [_ENCODER, *differing, *_RUN, time])
