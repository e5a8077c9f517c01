"""Runs the jobs of a grid one after another; each ends as a commit in the store or as a failure."""

import gc
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from codingbench.backbone import build_network
from codingbench.counting import OperationCounter
from codingbench.datasets import DatasetInfo, Source, fetch, load
from codingbench.encoder import Task
from codingbench.errors import CodingbenchError, SpecError, one_line
from codingbench.grid import Job
from codingbench.hardware import (
    device_name,
    keep_freed_memory,
    peak_memory_mb,
    reset_peak_memory,
    software,
)
from codingbench.image_files import Split
from codingbench.store import Store
from codingbench.tables import (
    cell_row,
    coordinates,
    failure_row,
    prediction_table,
    step_rows,
)
from codingbench.training import Data, Listener, evaluate, hold_out, stream, train


class GridListener(Listener, Protocol):
    """Hears what happens in a running grid."""

    def cell_skipped(self, job: Job) -> None:
        """The cell was finished before."""

    def cell_started(self, job: Job) -> None:
        """The cell's training begins."""

    def measuring(self, done: int, total: int) -> None:
        """The trained network is measured on the test images."""

    def cell_done(self, job: Job, row: dict[str, Any]) -> None:
        """The cell is in the store; ``row`` is its row of table ``cells``."""

    def cell_failed(self, job: Job, key: str, reason: str) -> None:
        """The cell has no result; its reason is in the store."""


@dataclass(frozen=True)
class Outcome:
    """How a grid ended."""

    done: int
    skipped: int  # were finished before
    failed: int


def task_of(info: DatasetInfo, num_steps: int) -> Task:
    """The data set's task in T steps."""
    return Task(
        num_steps, info.num_classes, info.channels, info.height, info.width, info.mean, info.std
    )


def check_plugins(jobs: Sequence[Job]) -> None:
    """Build each combination of plug-ins once, so that a refused parameter stops the grid early.

    Raises:
        SpecError: a plug-in refuses its parameters, T, or the images.
    """
    seen = set()
    for job in jobs:
        cell = job.cell
        combination = (cell.encoder, cell.backbone, cell.num_steps, cell.dataset)
        if combination in seen:
            continue
        seen.add(combination)
        try:
            build_network(job.encoder, job.backbone, task_of(job.info, cell.num_steps), seed=0)
        except ValueError as error:
            plugins = f"{cell.encoder} on {cell.backbone} at T={cell.num_steps}"
            raise SpecError(f"{plugins}: {one_line(error)}") from error
        except Exception:
            continue  # a fault of the plug-in, not of the request: it fails its cells


def run_grid(
    jobs: Sequence[Job],
    sources: Mapping[str, Source],
    store: Store,
    device: torch.device,
    listener: GridListener,
    force: bool = False,
) -> Outcome:
    """Run every job that the store does not hold as finished; ``force`` runs all.

    A failing cell is recorded with its reason and the others go on.

    Raises:
        CodingbenchError: a data set is broken or the store cannot be written.
    """
    keep_freed_memory()
    fingerprints = {name: source.fingerprint() for name, source in sources.items()}
    splits = _load_splits(jobs, sources)
    finished = set() if force else store.finished()
    done = skipped = failed = 0
    for job in jobs:
        fingerprint = fingerprints[job.cell.dataset]
        key = job.key(fingerprint)
        if key in finished:
            skipped += 1
            listener.cell_skipped(job)
            continue
        listener.cell_started(job)
        try:
            tables = run_job(job, key, fingerprint, splits, device, listener)
        except CodingbenchError:
            raise
        except Exception as error:
            reason, now = one_line(error), datetime.now(UTC)
            store.record_failure(key, failure_row(job, key, reason, traceback.format_exc(), now))
            listener.cell_failed(job, key, reason)
            failed += 1
        else:
            store.commit(key, tables)
            listener.cell_done(job, tables["cells"][0])
            done += 1
        gc.collect()  # a network's reference cycles would stay until the next one is as large
    return Outcome(done, skipped, failed)


def run_job(
    job: Job,
    key: str,
    fingerprint: str,
    splits: Mapping[tuple[str, str, int], Split],
    device: torch.device,
    listener: GridListener,
) -> dict[str, Any]:
    """Train and measure one cell; the rows of all its tables."""
    started, started_at = time.perf_counter(), datetime.now(UTC)
    reset_peak_memory(device)
    cell = job.cell
    data = _on_device(job, splits, device)
    task = task_of(job.info, cell.num_steps)
    network = build_network(job.encoder, job.backbone, task, cell.seed).to(device)
    training = train(network, data, job.recipe, cell.seed, cell.precision, listener)

    def measure() -> Any:
        return evaluate(
            network,
            data.test,
            stream(cell.seed, "test", device),
            cell.precision,
            each_batch=lambda images: listener.measuring(images, cell.test_samples),
        )

    with OperationCounter(network, cell.num_steps) as counter:
        evaluation = measure()
    selected = evaluation
    if training.selected_epoch != job.recipe.epochs:
        network.load_state_dict(training.selected_weights)
        selected = measure()
    layer_rows = counter.layer_rows()
    names = coordinates(job, key)
    facts = {
        **software(),
        "val_samples": len(data.val.labels),
        "uncounted": ",".join(counter.uncounted()),
        "dataset_fingerprint": fingerprint,
        "device": str(device),
        "device_name": device_name(device),
        "peak_memory_mb": peak_memory_mb(device),
        "started_at": started_at,
        "finished_at": datetime.now(UTC),
        "wall_s": time.perf_counter() - started,
    }
    summary = cell_row(job, network, training, evaluation, selected, layer_rows, facts)
    return {
        "cells": [names | summary],
        "steps": [names | row for row in step_rows(layer_rows, evaluation.accuracy)],
        "layers": [names | row for row in layer_rows],
        "epochs": [names | row for row in training.epoch_rows],
        "predictions": prediction_table(key, evaluation),
    }


def _load_splits(
    jobs: Sequence[Job], sources: Mapping[str, Source]
) -> dict[tuple[str, str, int], Split]:
    """Every split that some job needs, read once, before anything is trained."""
    splits: dict[tuple[str, str, int], Split] = {}
    for job in jobs:
        cell = job.cell
        for name, samples in (("train", cell.train_samples), ("test", cell.test_samples)):
            if (cell.dataset, name, samples) not in splits:
                splits[cell.dataset, name, samples] = load(sources[cell.dataset], name, samples)
    return splits


def _on_device(
    job: Job, splits: Mapping[tuple[str, str, int], Split], device: torch.device
) -> Data:
    cell = job.cell
    train_split, val = hold_out(
        splits[cell.dataset, "train", cell.train_samples], job.recipe.val_fraction
    )
    test = splits[cell.dataset, "test", cell.test_samples]
    moved = (Split(s.images.to(device), s.labels.to(device)) for s in (train_split, val, test))
    return Data(*moved)


def find_sources(jobs: Sequence[Job], data_dir: Path | None) -> dict[str, Source]:
    """Where each data set of the jobs is; what is missing is downloaded.

    Raises:
        DatasetError: not found and not to be had; the message says what to put where.
    """
    return {name: fetch(name, data_dir) for name in dict.fromkeys(j.cell.dataset for j in jobs)}
