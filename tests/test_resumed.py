"""What the log says of a cell that goes on from a checkpoint."""

import io

from rich.console import Console

from codingbench.cells.grid import Grid
from codingbench.training.meter import Pulse
from codingbench.views.progress import GridProgress


def said(*epochs: int) -> str:
    text = io.StringIO()
    with GridProgress(Console(file=text), 1) as progress:
        cell = progress.cell_started(Grid(encoders=("direct",)).expand()[0])
        for epoch in epochs:
            cell.pulse(Pulse(epoch, 4, 0.5, 100.0, 1.0, 0.5))
    return text.getvalue()


def test_a_resumed_cell_says_once_from_which_epoch_it_goes_on() -> None:
    assert said(2, 2, 3).count("going on from epoch 2") == 1 and "epoch 3" not in said(2, 3)
    assert "going on" not in said(1, 1, 2)
