"""The plan of a run as text: its cells with their estimated times."""

from collections.abc import Mapping, Sequence

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from codingbench.cells.grid import Cell, Job
from codingbench.runtime.formatting import counted, duration

_HEADINGS = ("data set", "encoder", "backbone", "T", "recipe", "epochs", "images", "seed")


def render_plan(
    jobs: Sequence[Job],
    seconds: Mapping[Cell, float],
    device: torch.device,
    most: int = 200,
    finished: int = 0,
) -> Group:
    """Return a table of the cells with their estimated times, and their sum below it.

    Args:
        jobs: the cells that will be run.
        seconds: the estimated time of each.
        device: where they will run.
        most: the number of cells that the table lists at most; the sum includes all.
        finished: the number of further cells, which will not be run again.
    """
    hidden = f" ({len(jobs) - most} not shown)" if len(jobs) > most else ""
    total = duration(sum(seconds[job.cell] for job in jobs))
    others = f"; {finished} more finished before" if finished else ""
    summary = Text(f"{counted(len(jobs), 'cell')}{hidden}, about {total} on {device.type}{others}")
    return Group(_table(jobs[:most], seconds), summary) if jobs else Group(summary)


def _table(jobs: Sequence[Job], seconds: Mapping[Cell, float]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold")
    table.add_column("time", justify="right")
    for cell in (job.cell for job in jobs):
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
    return table
