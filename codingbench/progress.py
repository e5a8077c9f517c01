"""What a running grid shows: live bars on a terminal, plain lines elsewhere; always on stderr."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from codingbench.grid import Job
from codingbench.training import Pulse

_TRAINING_SHARE = 0.95  # of a cell's bar; the rest is its final measurement


class GridProgress:
    """A context manager that listens to a grid: one bar for the grid, one for the current cell."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
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
        self._cell = Progress(
            TextColumn("[bold]cell[/]"),
            BarColumn(),
            TextColumn("{task.description} · left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._grid_task = self._grid.add_task("", total=total)
        self._current = ""
        self._live = Live(console=console, transient=True, get_renderable=self._display)
        self._is_live = console.is_terminal
        self._position = 0
        self.done = 0  # cells that are in the store
        self._cell_task: Any = None

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_live:
            self._live.stop()

    def cell_started(self, job: Job) -> None:
        """A new bar for the cell."""
        self._position += 1
        for task in self._cell.task_ids:
            self._cell.remove_task(task)
        self._cell_task = self._cell.add_task("", total=1.0)
        self._current = f"{job.cell} · {job.cell.dataset}"
        if not self._is_live:
            self._say(self._current)

    def cell_skipped(self, job: Job) -> None:
        """The grid's bar counts what was finished before."""
        self._position += 1
        self.done += 1
        self._grid.update(self._grid_task, completed=self._position)

    def pulse(self, pulse: Pulse) -> None:
        """Epoch, speed, loss and accuracy of the current cell."""
        text = (
            f"epoch {pulse.epoch}/{pulse.epochs} · {pulse.images_per_s:,.0f} images/s · "
            f"loss {pulse.loss:.3f} · accuracy {pulse.accuracy:.1%}"
        )
        self._advance(_TRAINING_SHARE * pulse.done, text)

    def epoch_done(self, row: dict[str, Any]) -> None:
        """A line per epoch where there is no live display."""
        if not self._is_live:
            self._say(
                f"  epoch {row['epoch']}: loss {row['train_loss']:.3f}, "
                f"validation accuracy {row['val_accuracy']:.1%}, "
                f"{row['images_per_s']:,.0f} images/s"
            )

    def measuring(self, done: int, total: int) -> None:
        """The final measurement on the test images."""
        share = _TRAINING_SHARE + (1 - _TRAINING_SHARE) * done / total
        self._advance(share, f"measuring {done}/{total} test images")

    def cell_done(self, job: Job, row: dict[str, Any]) -> None:
        """One line that stays."""
        self.done += 1
        chance = 1 / row["num_classes"]
        self._finish(
            ("done   ", "green"),
            f"{self._current}: accuracy {row['accuracy']:.1%} "
            f"(chance {chance:.0%}) in {row['wall_s']:.0f} s",
        )

    def cell_failed(self, job: Job, key: str, reason: str) -> None:
        """One line that stays, with the reason."""
        self._finish(("failed ", "red"), f"{self._current}: {reason}")

    def _display(self) -> Group:
        return Group(self._grid, Text(f"     {self._current}"), self._cell)

    def _advance(self, share: float, text: str) -> None:
        """Both bars: the grid's moves with the cell's."""
        self._cell.update(self._cell_task, completed=share, description=text)
        self._grid.update(self._grid_task, completed=self._position - 1 + share)

    def _finish(self, outcome: tuple[str, str], text: str) -> None:
        self._grid.update(self._grid_task, completed=self._position)
        self._say(outcome, text)

    def _say(self, *parts: str | tuple[str, str]) -> None:
        """A line; a part is text as it is, never markup: labels hold brackets."""
        head = f"[{self._position}/{self._total}] "
        self.console.print(Text.assemble(head, *parts), soft_wrap=True)
