"""One cell from its initial weights to the rows of its tables."""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from codingbench.backbone import Network, move_network
from codingbench.cells.footprint import chosen_backend
from codingbench.cells.grid import Grid, Job
from codingbench.cells.network import network_of
from codingbench.cells.rows import cell_row, coordinates, prediction_table, step_rows
from codingbench.counting.counter import OperationCounter
from codingbench.datasets import Source, fetch
from codingbench.datasets.images import ImageSplit
from codingbench.neurons.backends import backend_run, use_backend
from codingbench.runtime.devices import peak_memory_mb, reset_peak_memory
from codingbench.runtime.provenance import provenance
from codingbench.training.checkpoint import Checkpoints
from codingbench.training.loop import (
    Data,
    Evaluation,
    Interrupted,
    Listener,
    evaluate,
    hold_out,
    stream,
    train,
)


class TestListener(Protocol):
    """Hears how a measurement goes on."""

    def measuring(self, done: int, total: int) -> None:
        """So many of the test images are done."""


class CellListener(Listener, TestListener, Protocol):
    """Hears what happens in a running cell."""


@dataclass(frozen=True)
class RunConfig:
    """A grid and how to run it: plain data, for any process on any machine.

    Args:
        grid: what is run; only cells whose keys are asked for.
        results: the store's folder.
        device: as ``torch.device`` takes it.
        fingerprints: of each data set's files.
        neurons: ``auto``, ``compiled`` or ``eager``.
        threads: of each cell, on a CPU; its devices share them.
        devices: on which a cell is trained, from ``device`` on.
        decoders: processes of each cell that decode photographs; None: as many as fit.
        is_deterministic: only algorithms that repeat themselves.
        names_host: the rows hold a hash of the machine's name.
        keeps_weights: of finished cells, for what is asked of them later.
        force: finished cells are run again.
    """

    grid: Grid
    results: Path
    device: str
    fingerprints: Mapping[str, str]
    neurons: str = "auto"
    threads: int = 1
    devices: int = 1
    decoders: int | None = None
    is_deterministic: bool = True
    names_host: bool = True
    keeps_weights: bool = True
    force: bool = False

    def jobs(self) -> dict[str, Job]:
        """The cells by their keys."""
        return {job.key(self.fingerprints[job.cell.dataset]): job for job in self.grid.expand()}


@dataclass(frozen=True)
class Weights:
    """Of a trained network: after the last epoch, and of the selected one if that is another."""

    last: dict[str, Tensor]
    selected: dict[str, Tensor] | None


@dataclass(frozen=True)
class Apart:
    """How a training went in processes of its own, whose last checkpoint holds the rest."""

    neuron_backend: str
    peak_memory_mb: float  # of the process that took most


def asked_backend(network: Network, job: Job, order: RunConfig) -> str:
    """What neurons are to be run by, one of ``lif_backends.BACKENDS``."""
    return chosen_backend(network, job, order.neurons)


def run_job(
    job: Job,
    key: str,
    data: Data,
    order: RunConfig,
    listener: CellListener,
    checkpoints: Checkpoints | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    train_apart: Callable[[], Apart] | None = None,
) -> tuple[dict[str, Any], Weights]:
    """Train and measure one cell; the rows of all its tables, and its weights.

    What ``train_apart`` trains elsewhere, it leaves as the last checkpoint, which is then gone on
    from.

    Raises:
        Interrupted: ``should_stop`` said so; what was trained is in the checkpoints.
        TrainingError: the training cannot go on.
    """
    started, started_at = time.perf_counter(), datetime.now(UTC)
    device, cell = torch.device(order.device), job.cell
    reset_peak_memory(device)
    apart = train_apart() if train_apart else None
    network = move_network(network_of(job), device)
    asked = asked_backend(network, job, order)
    with use_backend(asked):
        training = train(
            network,
            data,
            job.recipe,
            cell.seed,
            cell.precision,
            listener,
            checkpoints=checkpoints,
            should_stop=should_stop,
            micro_batch=cell.micro_batch,
        )
        backend = backend_run(asked)
    weights = Weights(copy.deepcopy(network.state_dict()), None)
    if training.selected_epoch != job.recipe.epochs:
        weights = replace(weights, selected=training.selected_weights)
    measured = measure(network, weights, data, job, listener, should_stop)
    facts = {
        **provenance(device, order.names_host),
        "neuron_backend": apart.neuron_backend if apart else backend,
        "devices": order.devices,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "config_hash": job.config_hash(),
        "val_samples": len(data.val.labels),
        "uncounted": ",".join(measured.counter.uncounted()),
        "dataset_fingerprint": order.fingerprints[cell.dataset],
        "peak_memory_mb": max(peak_memory_mb(device), apart.peak_memory_mb if apart else 0.0),
        "started_at": started_at,
        "finished_at": datetime.now(UTC),
        "wall_s": time.perf_counter() - started,
    }
    names, layer_rows = coordinates(job, key), measured.counter.layer_rows()
    summary = cell_row(job, network, training, measured.last, measured.selected, layer_rows, facts)
    tables = {
        "cells": [names | summary],
        "steps": [names | row for row in step_rows(layer_rows, measured.last.accuracy)],
        "layers": [names | row for row in layer_rows],
        "epochs": [names | row for row in training.epoch_rows],
        "predictions": prediction_table(key, measured.last),
    }
    return tables, weights


@dataclass(frozen=True)
class Measured:
    """A trained network on the test images: its last weights, counted, and those selected."""

    last: Evaluation
    selected: Evaluation
    counter: OperationCounter


def measure(
    network: Network,
    weights: Weights,
    data: Data,
    job: Job,
    listener: TestListener,
    should_stop: Callable[[], bool] = lambda: False,
) -> Measured:
    """Evaluate the network, which has its last weights, counting; then with those selected.

    Raises:
        Interrupted: ``should_stop`` said so.
    """
    cell = job.cell

    def each_batch(images: int) -> None:
        if should_stop():
            raise Interrupted
        listener.measuring(images, cell.test_samples)

    def test() -> Evaluation:
        draws = stream(cell.seed, "test", next(network.parameters()).device)
        return evaluate(network, data.test, draws, cell.precision, each_batch)

    with OperationCounter(network, cell.num_steps) as counter:
        last = test()
    selected = last
    if weights.selected is not None:
        network.load_state_dict(weights.selected)
        selected = test()
    return Measured(last, selected, counter)


def data_of(job: Job, train_split: ImageSplit, test: ImageSplit, device: torch.device) -> Data:
    """The images on their device, the validation images held out."""
    kept, val = hold_out(train_split, job.recipe.val_fraction)
    return Data(*(split.to(device) for split in (kept, val, test)))


def find_sources(jobs: list[Job], data_dir: Path | None) -> dict[str, Source]:
    """Where each data set of the jobs is; what is missing is downloaded.

    Raises:
        DatasetError: not found and not to be had; the message says what to put where.
    """
    infos = {job.cell.dataset: job.info for job in jobs}
    return {name: fetch(info.address or name, data_dir) for name, info in infos.items()}
