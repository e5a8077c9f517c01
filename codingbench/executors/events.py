"""Events of a cell that runs in another process: sent as name and content, and received."""

from collections.abc import Callable, Mapping
from typing import Any

from codingbench.cells.grid import Job
from codingbench.cells.run import CellListener
from codingbench.executors.base import GridListener
from codingbench.training.meter import Pulse


def ignore_event(name: str, *content: Any) -> None:
    """Do nothing, in a process whose events are not needed."""


class EventSender:
    """A cell's listener that sends each event as its name and content."""

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send

    def pulse(self, pulse: Pulse) -> None:
        """Send the event."""
        self._send("pulse", pulse)

    def epoch_done(self, row: dict[str, Any]) -> None:
        """Send the event."""
        self._send("epoch_done", row)

    def measuring(self, done: int, total: int) -> None:
        """Send the event."""
        self._send("measuring", done, total)


class EventRouter:
    """Passes events of remote cells on to a grid's listener; events may be late or missing.

    The listener gets the start of a cell before anything else, once more if the cell is tried
    again, and nothing after its end.
    """

    def __init__(self, listener: GridListener, jobs: Mapping[str, Job]) -> None:
        self._listener, self._jobs = listener, jobs
        self._cells: dict[str, CellListener] = {}
        self._ended: set[str] = set()

    def receive(self, key: str, name: str, *content: Any) -> None:
        """Pass on an event of a cell."""
        if key in self._ended:
            return
        if name == "began" or key not in self._cells:
            self._cells[key] = self._listener.cell_started(self._jobs[key])
        if name != "began":
            getattr(self._cells[key], name)(*content)

    def has_begun(self, key: str) -> bool:
        """Return whether the listener was told that the cell has started."""
        return key in self._cells

    def end(self, key: str) -> None:
        """Note that the cell has ended; its start is announced now if no event of it arrived."""
        if not self.has_begun(key):
            self.receive(key, "began")
        self._ended.add(key)
