"""Finished cells measured again from their kept weights: the same numbers must come out."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from codingbench.backbone import Network
from codingbench.cells.grid import Grid, Job
from codingbench.cells.network import network_of
from codingbench.cells.rows import prediction_table
from codingbench.cells.run import Measured, Weights, data_of, find_sources, measure
from codingbench.datasets import load_or_stream
from codingbench.datasets.streaming import default_decoders
from codingbench.errors import CodingbenchError, SpecError
from codingbench.plugins.specs import ALTERNATIVES
from codingbench.runtime.devices import conditions
from codingbench.schema import COUNTS
from codingbench.store.folder import Store
from codingbench.training.checkpoint import Checkpoints

WEIGHTS = "weights"
"""Folder of a store that holds the weights of finished cells."""


def kept_weights(store: Store, key: str) -> Checkpoints:
    """Where the weights of a finished cell are, or would be."""
    return Checkpoints(store.folder / WEIGHTS, key)


@dataclass(frozen=True)
class LoadedCell:
    """A finished cell: its row of table ``cells``, the job that gave it, and its weights."""

    row: dict[str, Any]
    job: Job
    weights: Weights

    def conditions(self) -> AbstractContextManager[None]:
        """Inside, torch has the threads of the original run, and its algorithms."""
        row = self.row
        threads = int(row["threads"]) if pd.notna(row["threads"]) else torch.get_num_threads()
        return conditions(threads, bool(row["deterministic"]))

    def network(self, is_selected: bool = False) -> Network:
        """On the CPU, with the weights after the last epoch; ``is_selected``: of the epoch with the
        best validation accuracy, which may be the last."""
        network = network_of(self.job)
        chosen = self.weights.selected if is_selected else None
        network.load_state_dict(chosen or self.weights.last)
        return network


def restore(store: Store, key: str, data_dir: Path | None) -> LoadedCell:
    """A finished cell with its weights, if what it names is still what it was.

    Raises:
        SpecError: no such cell is finished, or its plug-ins, recipe or data are not what they were.
        CodingbenchError: its weights were not kept.
        DatasetError: its data set is not to be had.
    """
    cells = store.read("cells", [key])
    if cells.empty:
        raise SpecError(f"no finished cell {key!r} in {str(store.folder)!r}")
    row = {str(name): value for name, value in cells.iloc[0].items()}
    state = kept_weights(store, key).load()
    if state is None:
        raise CodingbenchError(f"the weights of {key} were not kept in {str(store.folder)!r}")
    return LoadedCell(row, _job_of(row, data_dir), Weights(**state["weights"]))


def differences(store: Store, key: str, data_dir: Path | None) -> list[str]:
    """What does not come out as it is in the store, one line each; empty if all does.

    Accuracies, predictions and all counts per layer and step are compared, on the device and with
    the threads of the original run.

    Raises:
        SpecError, CodingbenchError, DatasetError: as :func:`restore`.
    """
    kept = restore(store, key, data_dir)
    with kept.conditions():
        device = torch.device(kept.row["device"])
        measured = _measured(kept, device, data_dir)
    return list(_compared(store, key, kept.row, measured))


class _Unheard:
    def measuring(self, done: int, total: int) -> None:
        """Nobody listens."""


def _job_of(row: dict[str, Any], data_dir: Path | None) -> Job:
    """The job that gave the row, if what it names is still what it was."""
    for axis in ("encoder", "backbone"):
        if ":" in row[axis].partition("[")[0] or ALTERNATIVES in row[axis]:
            # a stranger's store must not choose what code is run here
            raise SpecError(f"{row['key']}: {row[axis]!r} is no label of any {axis}")
    if ALTERNATIVES in row["dataset"] or "/" in row["dataset"]:
        raise SpecError(f"{row['key']}: {row['dataset']!r} is no name of any data set")
    grid = Grid(
        encoders=(row["encoder"],),
        backbones=(row["backbone"],),
        datasets=(row["dataset"],),
        num_steps=(int(row["num_steps"]),),
        recipes=(row["recipe"],),
        seeds=(int(row["seed"]),),
        epochs=int(row["epochs"]),
        batch_size=int(row["batch_size"]),
        micro_batch=int(row["micro_batch"]),
        train_samples=int(row["train_samples"]),
        test_samples=int(row["test_samples"]),
        precision=row["precision"],
        data_dir=data_dir,
    )
    (job,) = grid.expand()
    now = job.key(find_sources([job], data_dir)[job.cell.dataset].fingerprint())
    if now != row["key"]:
        raise SpecError(
            f"{row['key']} cannot be measured again: its plug-ins, recipe, data or the engine have "
            f"changed since (the same cell would now be {now})"
        )
    return job


def _measured(kept: LoadedCell, device: torch.device, data_dir: Path | None) -> Measured:
    job, cell = kept.job, kept.job.cell
    source = find_sources([job], data_dir)[cell.dataset]
    decoders = default_decoders(device, torch.get_num_threads())
    splits = (  # only test images are looked at: photographs to train on stay in their files
        load_or_stream(source, "train", cell.train_samples, True, decoders),
        load_or_stream(source, "test", cell.test_samples, False, decoders),
    )
    data = data_of(job, *splits, device)
    return measure(kept.network().to(device), kept.weights, data, job, _Unheard())


def _compared(store: Store, key: str, row: dict[str, Any], measured: Measured) -> Iterator[str]:
    accuracies = measured.last.accuracy[-1], measured.selected.accuracy[-1]
    for name, now in zip(("accuracy", "selected_accuracy"), accuracies, strict=True):
        if row[name] != now:
            yield f"{key}: {name} was {row[name]}, is {now}"
    steps = store.read("steps", [key]).sort_values("step")["accuracy"].tolist()
    for step, (before, now) in enumerate(zip(steps, measured.last.accuracy, strict=True), 1):
        if before != now:
            yield f"{key}: accuracy after step {step} was {before}, is {now}"
    before, now = store.read("predictions", [key]), prediction_table(key, measured.last).to_pandas()
    changed = int((before["prediction"].to_numpy() != now["prediction"].to_numpy()).sum())
    if changed:
        yield f"{key}: {changed} of {len(now)} predictions differ"
    places = ["layer", "kind", "step"]
    layers = pd.DataFrame(measured.counter.layer_rows()).set_index(places)
    stored = store.read("layers", [key]).set_index(places)
    for name in (*COUNTS, "spikes"):
        if (
            not stored[name]
            .sort_index()
            .equals(layers[name].sort_index().astype(stored[name].dtype))
        ):
            yield f"{key}: {name} was {stored[name].sum():,}, is {layers[name].sum():,}"
