"""Scalars of running cells for other tools: ``--log csv`` and ``--log tensorboard``.

The process that runs the grid writes them from the events of its cells, wherever those run. When a
cell ends, epochs whose events did not arrive are added from the store. An epoch that is trained
again, after an interruption or with ``--force``, replaces the earlier one.
"""

import csv
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import pandas as pd

from codingbench.cells.grid import Job
from codingbench.cells.run import CellListener
from codingbench.errors import StoreError
from codingbench.executors.base import GridListener
from codingbench.runtime.formatting import records
from codingbench.store.folder import Store
from codingbench.training.meter import Pulse

LOGS: Final = "logs"
"""The folder in that of the results."""

SCALARS: Final = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "train_accuracy": "accuracy/train",
    "val_accuracy": "accuracy/validation",
    "test_accuracy": "accuracy/test",
    "learning_rate": "learning rate",
    "images_per_s": "images per second",
}
"""The columns of ``epochs`` that are logged, and their names in TensorBoard."""

Row = Mapping[str, Any]


class Log(Protocol):
    """Writes the scalars of one cell."""

    def epoch(self, row: Row) -> None:
        """Write an epoch, a row of table ``epochs``; it replaces an earlier one of its number."""

    def finish(self, epochs: Sequence[Row], rates: Mapping[str, float]) -> None:
        """Add the epochs that are missing, and the firing rate of each layer, in [0, 1]."""

    def close(self) -> None:
        """End the writing, for now."""


class CsvLog:
    """A file with a row per epoch, and at the end one with the firing rate of each layer."""

    def __init__(self, folder: Path, name: str) -> None:
        self._epochs = folder / "csv" / f"{name}.csv"
        self._rates = folder / "csv" / f"{name}.layers.csv"

    def epoch(self, row: Row) -> None:
        """See :class:`Log`."""
        self._write([row], keeps_later=False)

    def finish(self, epochs: Sequence[Row], rates: Mapping[str, float]) -> None:
        """See :class:`Log`."""
        self._write(epochs, keeps_later=True)
        rows = [{"layer": layer, "firing_rate": rate} for layer, rate in rates.items()]
        _replace(self._rates, ["layer", "firing_rate"], rows)

    def close(self) -> None:
        """Do nothing: the file is complete after each epoch."""

    def _write(self, rows: Sequence[Row], keeps_later: bool) -> None:
        found: dict[int, Row] = {int(row["epoch"]): row for row in _read(self._epochs)}
        for row in rows:
            if not keeps_later:  # what follows is trained again
                found = {epoch: kept for epoch, kept in found.items() if epoch < row["epoch"]}
            found[int(row["epoch"])] = row
        _replace(self._epochs, ["epoch", *SCALARS], [found[epoch] for epoch in sorted(found)])


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _replace(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write a whole file and rename it into place, so that a reader never sees a part."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows({k: None if pd.isna(v) else v for k, v in row.items()} for row in rows)
        new.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write the log {str(path)!r}: {error.strerror}") from error


class TensorBoardLog:
    """A run of TensorBoard. Epochs that are trained again take the place of the earlier ones."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / "tensorboard" / name
        self._writer: Any = None

    def epoch(self, row: Row) -> None:
        """See :class:`Log`."""
        self._open(first=int(row["epoch"]))
        for column, scalar in SCALARS.items():
            if not pd.isna(row[column]):
                self._writer.add_scalar(scalar, row[column], int(row["epoch"]))
        self._writer.flush()

    def finish(self, epochs: Sequence[Row], rates: Mapping[str, float]) -> None:
        """See :class:`Log`."""
        logged = self._logged() if self._writer else set()
        for row in epochs:
            if int(row["epoch"]) not in logged:
                self.epoch(row)
        for layer, rate in rates.items():
            self._writer.add_scalar(f"firing rate/{layer}", rate, len(epochs))

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, first: int) -> None:
        """Open the run, in which TensorBoard drops the steps from ``first`` on of earlier files."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=first)

    def _logged(self) -> set[int]:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(self._folder))
        events.Reload()
        loss = SCALARS["train_loss"]
        known = loss in events.Tags()["scalars"]
        return {event.step for event in events.Scalars(loss)} if known else set()


KINDS: Final[dict[str, Callable[[Path, str], Log]]] = {"csv": CsvLog, "tensorboard": TensorBoardLog}
"""The logs by their names, ``executors.config.LOG_NAMES``."""


class Logging:
    """A grid's listener that logs the scalars of the cells and passes all events on.

    Args:
        listener: receives all events.
        names: of the logs, at least one.
        store: the results, whose folder gets the logs.
        keys: the key of each cell.
    """

    def __init__(
        self, listener: GridListener, names: Sequence[str], store: Store, keys: Mapping[Job, str]
    ) -> None:
        self._listener, self._names, self._store, self._keys = listener, names, store, keys
        self._logs: dict[Job, list[Log]] = {}

    def cell_skipped(self, job: Job) -> None:
        """Pass the event on."""
        self._close(job)
        self._listener.cell_skipped(job)

    def cell_started(self, job: Job) -> CellListener:
        """Return a listener that logs each epoch."""
        self._close(job)  # of an earlier try
        return _LoggedCell(self._listener.cell_started(job), self._of(job))

    def cell_done(self, job: Job, row: dict[str, Any]) -> None:
        """Complete the logs of the cell from the store."""
        key = self._keys[job]
        epochs = records(self._store.read("epochs", [key]).sort_values("epoch"))
        rates = firing_rates(self._store.read("layers", [key]))
        for log in self._of(job):
            log.finish(epochs, rates)
        self._close(job)
        self._listener.cell_done(job, row)

    def cell_failed(self, job: Job, key: str, reason: str) -> None:
        """Pass the event on."""
        self._close(job)
        self._listener.cell_failed(job, key, reason)

    def cell_paused(self, job: Job, reason: str) -> None:
        """Pass the event on."""
        self._close(job)
        self._listener.cell_paused(job, reason)

    def close(self) -> None:
        """Close the logs of all cells that have not ended."""
        for job in list(self._logs):
            self._close(job)

    def _of(self, job: Job) -> list[Log]:
        if job not in self._logs:
            folder, name = self._store.folder / LOGS, log_name(job, self._keys[job])
            self._logs[job] = [KINDS[kind](folder, name) for kind in self._names]
        return self._logs[job]

    def _close(self, job: Job) -> None:
        for log in self._logs.pop(job, []):
            log.close()


class _LoggedCell:
    """Passes the events of a cell on and logs its epochs."""

    def __init__(self, listener: CellListener, logs: Sequence[Log]) -> None:
        self._listener, self._logs = listener, logs

    def pulse(self, pulse: Pulse) -> None:
        self._listener.pulse(pulse)

    def epoch_done(self, row: dict[str, Any]) -> None:
        for log in self._logs:
            log.epoch(row)
        self._listener.epoch_done(row)

    def measuring(self, done: int, total: int) -> None:
        self._listener.measuring(done, total)


def log_name(job: Job, key: str) -> str:
    """Return the name of a cell's logs: its coordinates, and the beginning of its key."""
    cell = job.cell
    parts = cell.dataset, cell.encoder, cell.backbone, f"T{cell.num_steps}", cell.recipe
    plain = (re.sub(r"[^\w.,=\[\]-]+", "-", part) for part in parts)
    return "_".join([*plain, f"seed{cell.seed}", key[:8]])


def firing_rates(layers: pd.DataFrame) -> dict[str, float]:
    """Return spikes per neuron and step of each layer of neurons, from rows of ``layers``."""
    rows = layers[layers["kind"] == "neuron"].sort_values("position", kind="stable")
    sums = rows.assign(chances=rows["neurons"] * rows["images"]).groupby("layer", sort=False)
    return {
        str(layer): float(of["spikes"].sum() / of["chances"].sum())
        for layer, of in sums
        if of["chances"].sum()
    }
