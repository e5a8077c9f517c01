"""The plan of a run as text: its cells with their estimated times."""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from rich.console import Group
from rich.text import Text

from codingbench.cells.grid import Cell, Job
from codingbench.runtime.formatting import counted, duration
from codingbench.views.fitting import Fitted
from codingbench.views.table import Column, neuron_column, rich_table, shown

_COLUMNS: Final = (
    Column("data set", lambda cell: cell.dataset, is_number=False),
    Column("encoder", lambda cell: cell.encoder, is_number=False, is_key=True),
    Column("backbone", lambda cell: cell.backbone, is_number=False),
    neuron_column(),
    Column("T", lambda cell: str(cell.num_steps), is_key=True),
    Column("recipe", lambda cell: cell.recipe, is_number=False),
    Column("epochs", lambda cell: str(cell.epochs)),
    Column("images", lambda cell: f"{cell.train_samples:,}"),
    Column("seed", lambda cell: str(cell.seed), is_key=True),
)


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


def _table(jobs: Sequence[Job], seconds: Mapping[Cell, float]) -> Fitted:
    time = Column("time", lambda cell: duration(seconds[cell]))
    cells = [job.cell for job in jobs]
    return rich_table(cells, shown([*_COLUMNS, time], cells))
