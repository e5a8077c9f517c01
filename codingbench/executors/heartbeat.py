"""The progress of a running cell, written into the store every few seconds by a thread."""

import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from codingbench.cells.grid import Cell, Job
from codingbench.cells.run import CellListener
from codingbench.runtime.host import host_hash
from codingbench.store.progress import (
    BEAT_S,
    CellName,
    CellProgress,
    progress_of,
    remove_progress,
    write_progress,
)
from codingbench.training.checkpoint import CHECKPOINTS, Checkpoints
from codingbench.training.meter import Pulse

_KEPT = {"epoch", "done", "loss", "train_accuracy"}  # of a cell that goes on, until its first event
_TRAINING_SHARE = 0.95  # of a cell's time; the rest is its final measurement


def name_of(cell: Cell) -> CellName:
    """Return the coordinates by which ``codingbench status`` names a cell."""
    return CellName(**{field: getattr(cell, field) for field in CellName.model_fields})


class Heartbeat:
    """A cell's listener that passes events on; while it is entered, a thread writes the progress.

    The training only notes numbers. The thread writes them, also while a batch or a compilation
    takes long. At the end, the file says that the cell has stopped if there are checkpoints, and
    is removed otherwise.

    Args:
        listener: receives the events.
        folder: of the store.
        key: of the cell.
        job: of the cell.
        names_host: write the hash of the machine's name.
    """

    def __init__(
        self, listener: CellListener, folder: Path, key: str, job: Job, names_host: bool
    ) -> None:
        self._listener, self._folder = listener, folder
        self._checkpoints = Checkpoints(folder / CHECKPOINTS, key)
        host = host_hash() if names_host else None
        begun = CellProgress(
            key=key,
            name=name_of(job.cell),
            state="running",
            updated_at=datetime.now(UTC),
            host=host,
            pid=os.getpid(),
        )
        before = progress_of(folder, key) if self._checkpoints.exist() else None
        kept = (
            before.model_dump(include={"epoch", "done", "loss", "train_accuracy"}) if before else {}
        )
        self._progress = begun.model_copy(update=kept)
        self._first: tuple[float, float] | None = None  # time and share of the first event
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()
        if self._checkpoints.exist():
            self._note(state="stopped")
            self._write()
        else:
            remove_progress(self._folder, self._progress.key)

    def pulse(self, pulse: Pulse) -> None:
        """Note epoch, speed, loss and accuracy."""
        self._note(
            phase="training",
            epoch=pulse.epoch,
            done=pulse.done,
            loss=pulse.loss,
            train_accuracy=pulse.accuracy,
            images_per_s=pulse.images_per_s,
            left_s=self._left_s(_TRAINING_SHARE * pulse.done),
        )
        self._listener.pulse(pulse)

    def epoch_done(self, row: dict[str, Any]) -> None:
        """Pass the event on."""
        self._listener.epoch_done(row)

    def measuring(self, done: int, total: int) -> None:
        """Note the share of the test images that are measured."""
        share = _TRAINING_SHARE + (1 - _TRAINING_SHARE) * done / total
        self._note(phase="measuring", done=1.0, left_s=self._left_s(share))
        self._listener.measuring(done, total)

    def _left_s(self, share: float) -> float | None:
        """Return the expected seconds to the end, from the speed since this process began."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, share
        began, before = self._first
        return (now - began) * (1 - share) / (share - before) if share > before else None

    def _note(self, **values: Any) -> None:
        self._progress = self._progress.model_copy(update=values)

    def _beat(self) -> None:
        self._write()
        while not self._end.wait(BEAT_S):
            self._write()

    def _write(self) -> None:
        now = datetime.now(UTC)
        write_progress(self._folder, self._progress.model_copy(update={"updated_at": now}))
