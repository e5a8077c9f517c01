"""Progress of a training: running loss, accuracy and speed, and who receives them."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

_REPORT_EVERY_S = 0.2


class TrainingError(Exception):
    """The training cannot continue: the cell has failed."""


@dataclass(frozen=True)
class Pulse:
    """The progress of a running cell, sent several times a second."""

    epoch: int  # 1-based
    epochs: int
    done: float  # share of the cell's training, in [0, 1]
    images_per_s: float
    loss: float
    accuracy: float  # on the training images of this epoch so far


class Listener(Protocol):
    """Receives the progress of a running cell."""

    def pulse(self, pulse: Pulse) -> None:
        """Receive the present progress."""

    def epoch_done(self, row: dict[str, Any]) -> None:
        """Receive the row of a complete epoch, with the columns of table ``epochs``."""


class Meter:
    """Running loss, accuracy and duration of an epoch.

    The sums stay on the device. A report reads them, which waits for the device. There are at most
    five reports per second and one at the end, whatever the number of training steps.

    Args:
        epoch: the epoch, counted from 0.
        epochs: number of epochs of the training.
        total: number of images in the epoch.
        listener: receives the reports.
        over_ranks: adds up a number over the processes that train together.
    """

    def __init__(
        self,
        epoch: int,
        epochs: int,
        total: int,
        listener: Listener,
        over_ranks: Callable[[Tensor], Tensor],
    ) -> None:
        self.epoch, self.epochs, self.total, self.listener = epoch, epochs, total, listener
        self._over_ranks = over_ranks
        self.loss = self.accuracy = math.nan
        self.seconds = 0.0
        self._loss_sum: Tensor | float = 0.0
        self._hits: Tensor | float = 0.0
        self._seen = 0
        self._started = self._reported = time.perf_counter()

    def start(self) -> None:
        """Start the clock at ``seconds``."""
        self._reported = time.perf_counter()
        self._started = self._reported - self.seconds

    def add(self, loss_sum: Tensor, hits: Tensor, images: int) -> None:
        """Add the results of one batch to the sums of the epoch.

        Args:
            loss_sum: summed loss of the images of this process.
            hits: number of its images that were classified correctly.
            images: number of images over all processes.

        Raises:
            TrainingError: a report is due, and the loss is not finite.
        """
        self._loss_sum = self._loss_sum + self._over_ranks(loss_sum)
        self._hits = self._hits + self._over_ranks(hits)
        self._seen += images
        now = time.perf_counter()
        self.seconds = now - self._started
        if now - self._reported > _REPORT_EVERY_S:
            self.report()

    def report(self) -> None:
        """Read the sums and report them to the listener.

        Raises:
            TrainingError: the loss is not finite.
        """
        self.loss = float(self._loss_sum) / self._seen
        self.accuracy = float(self._hits) / self._seen
        self._reported = time.perf_counter()
        self.seconds = self._reported - self._started
        if not math.isfinite(self.loss):
            raise TrainingError(
                f"loss is {self.loss} in epoch {self.epoch + 1}, within the first "
                f"{self._seen} of {self.total} images; expected a finite number"
            )
        speed = self._seen / self.seconds
        done = (self.epoch + self._seen / self.total) / self.epochs
        self.listener.pulse(
            Pulse(self.epoch + 1, self.epochs, done, speed, self.loss, self.accuracy)
        )

    def state(self) -> dict[str, Any]:
        """Return the sums, for a checkpoint."""
        return {
            "loss_sum": self._loss_sum,
            "hits": self._hits,
            "seen": self._seen,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore the sums that :meth:`state` returned, as tensors on the device."""
        self._loss_sum = torch.as_tensor(state["loss_sum"], device=device)
        self._hits = torch.as_tensor(state["hits"], device=device)
        self._seen, self.seconds = state["seen"], state["seconds"]
