"""Progress of a running grid: live bars on a terminal, plain lines elsewhere."""

from types import TracebackType
from typing import Any, Self

import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from codingbench.analysis.learning import signs_of
from codingbench.cells.grid import Job
from codingbench.training.meter import Pulse
from codingbench.views.fitting import FoldingName

_WIDE = 100  # columns, from which on the text beside a cell's bar is on one line
_BESIDE_BAR = (80, 54)  # columns that this text takes on one line, and on two
_TRAINING_SHARE = 0.95  # of a cell's bar; the rest is its final measurement


class CellProgress:
    """Progress of one cell: a bar on a terminal, a line per epoch elsewhere."""

    def __init__(self, grid: "GridProgress", job: Job, number: int) -> None:
        self.name = f"{job.cell} · {job.cell.dataset}"
        self.number = number
        self._has_begun = False  # every epoch sends at least one pulse
        self.share = 0.0  # of the cell's work that is done
        self._separator = " · " if grid.console.width >= _WIDE else "\n"
        beside = _BESIDE_BAR[self._separator == "\n"]
        self.bar = Progress(
            TextColumn("[bold]cell[/]"),
            BarColumn(bar_width=min(40, max(4, grid.console.width - beside))),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=False)),
            TextColumn("· left"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=grid.console,
        )
        self._grid = grid
        self._task = self.bar.add_task("", total=1.0)

    def pulse(self, pulse: Pulse) -> None:
        """Show epoch, speed, loss and accuracy."""
        if not self._has_begun and pulse.epoch > 1:
            self._grid.say(self.number, f"  going on from epoch {pulse.epoch}")
        self._has_begun = True
        text = (
            f"epoch {pulse.epoch}/{pulse.epochs} · {pulse.images_per_s:,.0f} images/s"
            f"{self._separator}loss {pulse.loss:.3f} · accuracy {pulse.accuracy:.1%}"
        )
        self._advance(_TRAINING_SHARE * pulse.done, text)

    def epoch_done(self, row: dict[str, Any]) -> None:
        """Print a line per epoch where there is no live display."""
        if not self._grid.is_live:
            self._grid.say(
                self.number,
                f"  epoch {row['epoch']}: loss {row['train_loss']:.3f}, "
                f"validation accuracy {row['val_accuracy']:.1%}, "
                f"{row['images_per_s']:,.0f} images/s",
            )

    def measuring(self, done: int, total: int) -> None:
        """Show the progress of the final measurement on the test images."""
        share = _TRAINING_SHARE + (1 - _TRAINING_SHARE) * done / total
        self._advance(share, f"measuring {done}/{total} test images")

    def _advance(self, share: float, text: str) -> None:
        """Move both bars: the grid's moves with the cell's."""
        self.share = share
        self.bar.update(self._task, completed=share, description=text)
        self._grid.advance()


class GridProgress:
    """A listener and context manager that shows a bar for the grid and one per running cell.

    Args:
        console: where to print; its kind decides between bars and lines.
        total: number of cells of the grid.
    """

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.is_live = console.is_terminal or console.is_jupyter
        self.done = 0  # cells that are in the store
        self._total = total
        self._grid = Progress(
            TextColumn("[bold]grid[/]"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("cells ·"),
            TimeElapsedColumn(),
            TextColumn("· left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._grid_task = self._grid.add_task("", total=total)
        self._seen = 0  # cells that were started or skipped
        self._ended = 0
        self._running: dict[Job, CellProgress] = {}
        self._live = Live(console=console, transient=True, get_renderable=self._display)

    def __enter__(self) -> Self:
        if self.is_live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.is_live:
            self._live.stop()

    def cell_started(self, job: Job) -> CellProgress:
        """Add a bar; a cell that is tried again keeps its number."""
        if job not in self._running:
            self._seen += 1
        number = self._running[job].number if job in self._running else self._seen
        cell = self._running[job] = CellProgress(self, job, number)
        if not self.is_live:
            self.say(cell.number, cell.name)
        return cell

    def cell_skipped(self, job: Job) -> None:
        """Count a cell that another run has finished."""
        if self._running.pop(job, None) is None:
            self._seen += 1
        self.done += 1
        self._ended += 1
        self.advance()

    def cell_done(self, job: Job, row: dict[str, Any]) -> None:
        """Print a line with accuracy and time, and one for each sign that the cell learned nothing.

        The bar is removed.
        """
        self.done += 1
        cell = self._running[job]
        balanced = job.info.balanced_test
        is_equal = balanced is None or job.cell.test_samples <= balanced
        # of unequal classes the leaderboard knows the share of the largest
        chance = f" (chance {1 / row['num_classes']:.0%})" if is_equal else ""
        self._finish(
            job,
            ("done   ", "green"),
            f"accuracy {row['accuracy']:.1%}{chance} in {row['wall_s']:.0f} s",
        )
        for sign in signs_of(pd.DataFrame([row])):
            self.say(cell.number, ("warning", "yellow"), f" {cell.name}: {sign}")

    def cell_failed(self, job: Job, key: str, reason: str) -> None:
        """Print one line with the reason, and remove the bar."""
        self._finish(job, ("failed ", "red"), reason)

    def cell_paused(self, job: Job, reason: str) -> None:
        """Print one line about a cell whose next epoch does not fit, and remove the bar."""
        self._finish(job, ("paused ", "yellow"), f"{reason}, more than is left")

    def advance(self) -> None:
        """Move the grid's bar: it counts ended cells, and running cells by their shares."""
        running = sum(cell.share for cell in self._running.values())
        self._grid.update(self._grid_task, completed=self._ended + running)

    def say(self, number: int, *parts: str | tuple[str, str]) -> None:
        """Print a line; its parts are not parsed as markup, because labels contain brackets.

        A terminal shows it wrapped between words.
        """
        head = f"[{number}/{self._total}] "
        self.console.print(Text.assemble(head, *parts), soft_wrap=not self.is_live)

    def _finish(self, job: Job, outcome: tuple[str, str], text: str) -> None:
        cell = self._running.pop(job)
        self._ended += 1
        self.advance()
        self.say(cell.number, outcome, f"{cell.name}: {text}")

    def _display(self) -> Group:
        running = sorted(self._running.values(), key=lambda cell: cell.number)
        cells = [part for cell in running for part in (_indented(cell.name), cell.bar)]
        return Group(self._grid, *cells)


def _indented(name: str) -> Padding:
    return Padding(FoldingName(name), (0, 0, 0, 5))
