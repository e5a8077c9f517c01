"""The time limit of a run: what fits into the time that is left, learned from what has run."""

import math
import time
from collections.abc import Callable
from typing import Any, Final

from codingbench.cells.estimate import measurement_epochs
from codingbench.cells.grid import Cell, Job
from codingbench.cells.run import CellListener
from codingbench.training.budget import Allowance
from codingbench.training.meter import Pulse

Kind = tuple[object, ...]


class TimeLimit:
    """The seconds that a run may take, and how long its epochs have taken so far.

    A cell's first epoch is expected to take as long as the latest epoch of a cell in this run that
    differs only in its seed or number of epochs. Before there is one, it is the longest such time
    of the same network, recipe and images with another coding or T, in proportion to T. Before
    there is one of these either, the worker estimates it from training steps that it times
    (:func:`codingbench.cells.estimate.epoch_seconds`). Later epochs are judged by those of the
    cell itself (:class:`codingbench.training.budget.TimeBudget`).

    Args:
        seconds: the limit; infinite: none.
        started: the time of ``clock`` from which it counts; None: now.
        clock: seconds that never go back; None: ``time.monotonic``.
    """

    def __init__(
        self,
        seconds: float = math.inf,
        started: float | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.seconds, self.clock = seconds, clock or time.monotonic
        self.end = (self.clock() if started is None else started) + seconds
        self._epoch_s: dict[Kind, dict[tuple[str, int], float]] = {}
        self._test_epochs: dict[tuple[Kind, str, int], float] = {}
        self.epochs = 0
        """Number of epochs that have ended in this run."""

    def left_s(self) -> float:
        """Return the seconds that are left, 0 at least."""
        return max(0.0, self.end - self.clock())

    def admits(self, job: Job) -> bool:
        """Return whether the first epoch of a cell fits, as far as its time is known here."""
        return (self.expected_s(job) or 0.0) < self.left_s()

    def allowance(self, job: Job) -> Allowance | None:
        """Return the time that a cell may take from now on, or None without a limit."""
        if math.isinf(self.seconds):
            return None
        ratio = self._test_epochs.get(_coding(job.cell), measurement_epochs(job))
        return Allowance(self.end, self.expected_s(job), ratio)

    def expected_s(self, job: Job) -> float | None:
        """Return the expected seconds of the cell's first epoch, or None if nothing is known."""
        known = self._epoch_s.get(_kind(job.cell), {})
        coding, num_steps = job.cell.encoder, job.cell.num_steps
        if (coding, num_steps) in known:
            return known[coding, num_steps]
        return max((s * num_steps / t for (_, t), s in known.items()), default=None)

    def epoch_ended(self, cell: Cell, wall_s: float) -> None:
        """Note the time of an epoch, validation included."""
        self.epochs += 1
        self._epoch_s.setdefault(_kind(cell), {})[cell.encoder, cell.num_steps] = wall_s

    def test_ended(self, cell: Cell, wall_s: float) -> None:
        """Note the time of a cell's final measurement, as a multiple of its latest epoch's."""
        epoch_s = self._epoch_s[_kind(cell)][cell.encoder, cell.num_steps]
        self._test_epochs[_coding(cell)] = wall_s / epoch_s

    def learning(self, listener: CellListener, job: Job) -> CellListener:
        """Return a listener of a cell that notes the times of its events and passes them on."""
        return listener if math.isinf(self.seconds) else _LearningCell(listener, job.cell, self)


NO_LIMIT: Final = TimeLimit()


def _kind(cell: Cell) -> Kind:
    """Return everything besides coding and T on which the time of an epoch depends."""
    images = cell.train_samples, cell.batch_size, cell.micro_batch
    return cell.dataset, cell.network, cell.recipe, cell.precision, *images


def _coding(cell: Cell) -> tuple[Kind, str, int]:
    return (*_kind(cell), cell.test_samples), cell.encoder, cell.num_steps


class _LearningCell:
    """Passes the events of a cell on and notes how long its epochs and its measurement take."""

    def __init__(self, listener: CellListener, cell: Cell, limit: TimeLimit) -> None:
        self._listener, self._cell, self._limit = listener, cell, limit
        self._epoch_ended_at = math.nan  # unknown if no epoch has ended in this run

    def pulse(self, pulse: Pulse) -> None:
        self._listener.pulse(pulse)

    def epoch_done(self, row: dict[str, Any]) -> None:
        self._epoch_ended_at = self._limit.clock()
        self._limit.epoch_ended(self._cell, row["wall_s"])
        self._listener.epoch_done(row)

    def measuring(self, done: int, total: int) -> None:
        if done == total and not math.isnan(self._epoch_ended_at):
            self._limit.test_ended(self._cell, self._limit.clock() - self._epoch_ended_at)
        self._listener.measuring(done, total)
