"""A cell run by a process that somebody else starts, on Ray or on a cluster; what both need."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from codingbench.cells.grid import Job
from codingbench.cells.run import CellListener, RunConfig
from codingbench.errors import CodingbenchError
from codingbench.executors.base import CellOutcome, GridListener
from codingbench.executors.worker import Worker
from codingbench.runtime.interrupts import stop_on_signals
from codingbench.training.loop import Pulse


@dataclass(frozen=True)
class Refusal:
    """No cell of the order can be run; ``message`` is the line that says why.

    Returned, because the way back of an exception changes it: submitit keeps only its traceback.
    """

    message: str


Answer = CellOutcome | Refusal


def unheard(name: str, *content: Any) -> None:
    """Tells nobody."""


def run_cell(order: RunConfig, key: str, tell: Callable[..., None] = unheard) -> Answer:
    """Run one cell of the order; what it leaves is in the store.

    Args:
        order: with its device's index left out: whoever starts the process gives it its GPU.
        key: of the cell.
        tell: called with the name of what happens, ``began`` first, and what is said of it.

    Raises:
        Interrupted: the scheduler sent SIGTERM or SIGINT; a checkpoint is written.
    """
    order = replace(order, device=order.device.partition(":")[0])
    with stop_on_signals() as stop:
        try:
            worker = _worker(_Same(order))
            if key not in worker.jobs:
                return Refusal(f"no cell {key} here: this machine's code or plug-ins are others")
            tell("began")
            return worker.run(key, EventSender(tell), stop)
        except CodingbenchError as error:
            return Refusal(str(error))


def opened(answer: Answer) -> CellOutcome:
    """The report in an answer.

    Raises:
        CodingbenchError: it is a refusal.
    """
    if isinstance(answer, Refusal):
        raise CodingbenchError(answer.message)
    return answer


class EventSender:
    """Hears what happens in a cell and tells it as name and content."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell

    def pulse(self, pulse: Pulse) -> None:
        """Told as it is."""
        self._tell("pulse", pulse)

    def epoch_done(self, row: dict[str, Any]) -> None:
        """Told as it is."""
        self._tell("epoch_done", row)

    def measuring(self, done: int, total: int) -> None:
        """Told as it is."""
        self._tell("measuring", done, total)


class EventRouter:
    """Passes on what is told of cells elsewhere, which comes late, or not at all.

    The listener hears of a cell's beginning before anything else, again if it is tried again, and
    of nothing after its end.
    """

    def __init__(self, listener: GridListener, jobs: Mapping[str, Job]) -> None:
        self._listener, self._jobs = listener, jobs
        self._cells: dict[str, CellListener] = {}
        self._ended: set[str] = set()

    def hear(self, key: str, name: str, *content: Any) -> None:
        """What a cell tells."""
        if key in self._ended:
            return
        if name == "began" or key not in self._cells:
            self._cells[key] = self._listener.cell_started(self._jobs[key])
        if name != "began":
            getattr(self._cells[key], name)(*content)

    def has_begun(self, key: str) -> bool:
        """Whether the cell was told to have."""
        return key in self._cells

    def end(self, key: str) -> None:
        """The cell has ended, even if its beginning was not heard of."""
        if not self.has_begun(key):
            self.hear(key, "began")
        self._ended.add(key)


class _Same:
    """An order as the key of a cache: equal to an equal one."""

    def __init__(self, order: RunConfig) -> None:
        self.order = order

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.order == other.order

    def __hash__(self) -> int:
        return hash((self.order.grid, self.order.results))


@cache
def _worker(same: _Same) -> Worker:
    """Of this process, which may run many cells and loads their data once."""
    return Worker(same.order, same.order.jobs())
