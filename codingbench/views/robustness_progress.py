"""The progress of ``codingbench robustness`` on stderr."""

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from codingbench.errors import CodingbenchError, printable
from codingbench.robustness.conditions import Condition
from codingbench.robustness.session import RobustnessListener


class RobustnessProgress(RobustnessListener):
    """Shows a bar while cells are measured if stderr is a terminal, and names cells left out.

    Args:
        cells: number of cells.
        conditions: number of conditions per cell.
    """

    def __init__(self, cells: int, conditions: int) -> None:
        self._conditions = conditions
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=cells * conditions)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def cell_started(self, number: int, key: str) -> None:
        """Set the bar to the beginning of the cell, whose predecessor may have been left out."""
        self._bar.update(self._task, completed=number * self._conditions)

    def measured(self, condition: Condition, accuracy: float) -> None:
        """Advance the bar and show the accuracy under the condition."""
        done = f"{condition.attack} {condition.strength:.3g}: {accuracy:.1%}"
        self._bar.update(self._task, advance=1, description=done)

    def cell_left_out(self, key: str, reason: CodingbenchError) -> None:
        """Print the reason."""
        self._console.print(f"left out: {printable(str(reason))}", markup=False)
