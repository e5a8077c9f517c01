"""What is heard of a training while it runs."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

_REPORT_EVERY_S = 0.2


class TrainingError(Exception):
    """The training cannot go on: the cell has failed."""


@dataclass(frozen=True)
class Pulse:
    """Where a running cell stands; sent several times a second."""

    epoch: int  # 1-based
    epochs: int
    done: float  # share of the cell's training, in [0, 1]
    images_per_s: float
    loss: float
    accuracy: float  # of the training images of this epoch so far


class Listener(Protocol):
    """Hears what happens in a running cell."""

    def pulse(self, pulse: Pulse) -> None:
        """The training goes on."""

    def epoch_done(self, row: dict[str, Any]) -> None:
        """An epoch is complete; ``row`` has the columns of table ``epochs``."""


class Meter:
    """Running loss, accuracy and seconds of an epoch.

    The sums stay on the device. A report reads them, and thereby waits for the device; there are
    at most five in a second and one at the end, whatever the number of training steps.
    ``over_ranks`` adds up what several processes have, where there are several.
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
        """Time goes on from ``seconds``."""
        self._reported = time.perf_counter()
        self._started = self._reported - self.seconds

    def add(self, loss_sum: Tensor, hits: Tensor, images: int) -> None:
        """Add the summed loss and the hits of this process to the sums of the epoch.

        Args:
            images: number of images, over all processes.

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
        """Read the sums and tell the listener.

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
        """The sums, for a checkpoint."""
        return {
            "loss_sum": self._loss_sum,
            "hits": self._hits,
            "seen": self._seen,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """The sums of :meth:`state`; a sum that is no tensor yet is made one, with its value."""
        self._loss_sum = torch.as_tensor(state["loss_sum"], device=device)
        self._hits = torch.as_tensor(state["hits"], device=device)
        self._seen, self.seconds = state["seen"], state["seconds"]
