"""The time that a training may take: it begins no epoch that would end too late."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_MARGIN: Final = 1.1  # by which an epoch may take longer than those before it
_RECENT: Final = 3  # epochs whose longest is taken for the next one


class OutOfTime(Exception):
    """The next epoch would end after the time limit; the progress is in the checkpoints.

    Args:
        needed_s: expected seconds of what does not fit.
    """

    def __init__(self, needed_s: float) -> None:
        super().__init__(f"its next epoch needs about {needed_s:.0f} s")


@dataclass(frozen=True)
class Allowance:
    """The time that a cell may take; plain data for any process.

    Args:
        end: time of ``time.monotonic()``, which all processes of a machine share, at which the cell
            should have ended.
        epoch_s: expected seconds of the cell's first epoch; None: unknown.
        test_epochs: expected time of the final measurement, as a multiple of an epoch's.
    """

    end: float
    epoch_s: float | None
    test_epochs: float


class TimeBudget:
    """Decides before each epoch of a training whether it fits into the time that is left.

    The next epoch is expected to take 1.1 times as long as the longest of the last three of this
    training, validation included. For the first epoch of a session it is the shortest of them,
    because one that was slow, by compiling or beside other work, would block the training for ever.
    Before any epoch has ended, the allowance's ``epoch_s`` counts; if that is None, the epoch is
    begun as long as any time is left. The last epoch must leave time for the final measurement, and
    every other one for a checkpoint.

    Args:
        allowance: the time that the training may take.
        clock: seconds that never go back, those of the allowance; None: ``time.monotonic``.
    """

    def __init__(self, allowance: Allowance, clock: Callable[[], float] | None = None) -> None:
        self._allowance, self._clock = allowance, clock or time.monotonic
        self._known: int | None = None  # epochs that were done when the session began

    def check(self, epoch_rows: Sequence[Mapping[str, Any]], epochs: int, save_s: float) -> None:
        """Check that the next epoch fits, or the measurement if all epochs are done.

        Args:
            epoch_rows: the rows of the epochs that are done, with their ``wall_s``.
            epochs: number of epochs of the training.
            save_s: seconds that writing a checkpoint takes.

        Raises:
            OutOfTime: it does not fit.
        """
        epoch_s, left = self._epoch_s(epoch_rows), epochs - len(epoch_rows)
        needed = _MARGIN * epoch_s if left else 0.0
        needed += self._allowance.test_epochs * epoch_s if left <= 1 else save_s
        if self._clock() + needed >= self._allowance.end:
            raise OutOfTime(needed)

    def _epoch_s(self, epoch_rows: Sequence[Mapping[str, Any]]) -> float:
        if self._known is None:
            self._known = len(epoch_rows)
        recent = [row["wall_s"] for row in epoch_rows[-_RECENT:]]
        choose = min if len(epoch_rows) == self._known else max
        return choose(recent, default=self._allowance.epoch_s or 0.0)
