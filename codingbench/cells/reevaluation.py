"""Finished cells, measured again from their kept weights: all numbers must be equal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from codingbench.cells.data import data_of, find_sources
from codingbench.cells.measure import Measured, measure
from codingbench.cells.rows import prediction_table
from codingbench.cells.weights import LoadedCell, restore
from codingbench.datasets import load_or_stream
from codingbench.datasets.streaming import default_decoders
from codingbench.plugins.loading import NOTHING_SAID, OwnCode
from codingbench.schema import COUNTS
from codingbench.store.folder import Store
from codingbench.training.graphs import tell_once


def differences(
    store: Store, key: str, data_dir: Path | None, own: OwnCode = NOTHING_SAID
) -> list[str]:
    """Measure a cell again; return one line per number that differs from the store's.

    Accuracies, predictions and all counts per layer and step are compared. The measurement runs on
    the device and with the threads of the original run.

    Raises:
        SpecError, CodingbenchError, DatasetError: as :func:`codingbench.cells.weights.restore`.
    """
    loaded = restore(store, key, data_dir, own)
    for line in loaded.changed:
        tell_once(line)
    with loaded.conditions():
        device = torch.device(loaded.row["device"])
        measured = _measure_again(loaded, device, data_dir)
    return [
        f"{key}: {difference}"
        for difference in (
            *_accuracy_differences(store, key, loaded.row, measured),
            *_prediction_differences(store, key, measured),
            *_count_differences(store, key, measured),
        )
    ]


class _SilentListener:
    def measuring(self, done: int, total: int) -> None:
        """Ignore the progress."""


def _measure_again(loaded: LoadedCell, device: torch.device, data_dir: Path | None) -> Measured:
    job, cell = loaded.job, loaded.job.cell
    source = find_sources([job], data_dir)[cell.dataset]
    decoders = default_decoders(device, torch.get_num_threads())
    # Training images are not read, so photographs among them stay in their files.
    train_split = load_or_stream(source, "train", cell.train_samples, True, decoders)
    test = load_or_stream(source, "test", cell.test_samples, False, decoders)
    data = data_of(job, train_split, test, device)
    return measure(loaded.network_on(device), loaded.weights, data, job, _SilentListener())


def _accuracy_differences(
    store: Store, key: str, row: dict[str, Any], measured: Measured
) -> Iterator[str]:
    accuracies = measured.last.accuracy[-1], measured.selected.accuracy[-1]
    for name, now in zip(("accuracy", "selected_accuracy"), accuracies, strict=True):
        if row[name] != now:
            yield f"{name} was {row[name]}, is {now}"
    steps = store.read("steps", [key]).sort_values("step")["accuracy"].tolist()
    for step, (before, now) in enumerate(zip(steps, measured.last.accuracy, strict=True), 1):
        if before != now:
            yield f"accuracy after step {step} was {before}, is {now}"


def _prediction_differences(store: Store, key: str, measured: Measured) -> Iterator[str]:
    before, now = store.read("predictions", [key]), prediction_table(key, measured.last).to_pandas()
    changed = int((before["prediction"].to_numpy() != now["prediction"].to_numpy()).sum())
    if changed:
        yield f"{changed} of {len(now)} predictions differ"


def _count_differences(store: Store, key: str, measured: Measured) -> Iterator[str]:
    index = ["layer", "kind", "step"]
    now = pd.DataFrame(measured.counter.layer_rows()).set_index(index).sort_index()
    before = store.read("layers", [key]).set_index(index).sort_index()
    for name in (*COUNTS, "spikes"):
        if before[name].isna().all():
            continue  # an earlier version did not count it
        if not before[name].equals(now[name].astype(before[name].dtype)):
            yield f"{name} was {before[name].sum():,}, is {now[name].sum():,}"
