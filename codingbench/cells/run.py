"""One cell, trained and measured: from its initial weights to the rows of its tables."""

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from codingbench.backbone import Network, move_network
from codingbench.cells.footprint import chosen_backend
from codingbench.cells.grid import Grid, Job
from codingbench.cells.measure import Measured, MeasurementListener, measure
from codingbench.cells.network import network_of
from codingbench.cells.rows import (
    cell_row,
    coordinates,
    prediction_table,
    step_rows,
    with_facts,
)
from codingbench.cells.weights import Weights
from codingbench.neurons.backends import backend_run, use_backend
from codingbench.runtime.devices import peak_memory_mb, reset_peak_memory
from codingbench.runtime.provenance import provenance
from codingbench.training.budget import TimeBudget
from codingbench.training.checkpoint import Checkpoints
from codingbench.training.loop import Training, train
from codingbench.training.meter import Listener
from codingbench.training.splits import Data


class CellListener(Listener, MeasurementListener, Protocol):
    """Receives what happens in a running cell."""


@dataclass(frozen=True)
class RunConfig:
    """A grid and how to run it: plain data that any process on any machine can use.

    Args:
        grid: the cells.
        results: folder of the store.
        device: as ``torch.device`` takes it.
        fingerprints: hash of each data set's files, by name.
        neurons: ``auto``, ``compiled`` or ``eager``.
        threads: CPU threads of each cell; its devices share them.
        devices: number of devices that train each cell, from ``device`` on.
        decoders: processes of each cell that decode photographs; None: chosen from the cores.
        is_deterministic: use only deterministic algorithms.
        names_host: keep a hash of the machine's name in the rows.
        keeps_weights: keep the weights of finished cells.
        force: run finished cells again.
        graphs: replay training steps and validations from CUDA graphs where that is possible.
        tests_each_epoch: measure the test accuracy after every epoch, for ``reproduce``.
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
    graphs: bool = True
    tests_each_epoch: bool = False

    def jobs(self) -> dict[str, Job]:
        """Expand the grid; return its jobs by their cells' keys."""
        return keyed(self.grid.expand(), self.fingerprints)


def keyed(jobs: Iterable[Job], fingerprints: Mapping[str, str]) -> dict[str, Job]:
    """Return the jobs by their cells' keys; ``fingerprints`` are those of the data sets."""
    return {job.key(fingerprints[job.cell.dataset]): job for job in jobs}


@dataclass(frozen=True)
class DistributedTraining:
    """Facts about a training that ran in processes of its own and left a last checkpoint.

    ``peak_memory_mb`` is that of the process that needed most, in 2^20 bytes. ``earlier_s`` are the
    seconds that earlier sessions of the training took.
    """

    neuron_backend: str
    peak_memory_mb: float
    earlier_s: float = 0.0


def requested_backend(network: Network, job: Job, config: RunConfig) -> str:
    """Return the backend that is to run the neurons, a name of ``neurons.backends.BACKENDS``."""
    return chosen_backend(network, job, config.neurons)


def run_job(
    job: Job,
    key: str,
    data: Data,
    config: RunConfig,
    listener: CellListener,
    checkpoints: Checkpoints | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    train_elsewhere: Callable[[], DistributedTraining] | None = None,
    budget: TimeBudget | None = None,
) -> tuple[dict[str, Any], Weights]:
    """Train and measure one cell; return the rows of all its tables, and its weights.

    Args:
        train_elsewhere: trains the cell on several devices first and leaves its result as the
            last checkpoint, from which the cell is then continued.
        budget: the time that the cell may take; None: any.

    Raises:
        Interrupted: ``should_stop`` returned true; what was trained is in the checkpoints.
        OutOfTime: the next epoch would end too late; what was trained is in the checkpoints.
        TrainingError: the training cannot continue.
    """
    started, started_at = time.perf_counter(), datetime.now(UTC)
    device, cell = torch.device(config.device), job.cell
    reset_peak_memory(device)
    elsewhere = train_elsewhere() if train_elsewhere else None
    network = move_network(network_of(job), device, cell.precision)
    requested = requested_backend(network, job, config)
    with use_backend(requested):
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
            graphs=config.graphs,
            budget=budget,
            tests_each_epoch=config.tests_each_epoch,
        )
        backend = backend_run(requested)
    weights = _weights_of(network, training, job)
    measured = measure(network, weights, data, job, listener, should_stop, config.graphs)
    facts = {
        **provenance(device, config.names_host),
        "neuron_backend": elsewhere.neuron_backend if elsewhere else backend,
        "devices": config.devices,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "config_hash": job.config_hash(),
        "val_samples": len(data.val.labels),
        "uncounted": ",".join(measured.counter.uncounted()),
        "dataset_fingerprint": config.fingerprints[cell.dataset],
        "peak_memory_mb": max(
            peak_memory_mb(device), elsewhere.peak_memory_mb if elsewhere else 0.0
        ),
        "started_at": started_at,
        "finished_at": datetime.now(UTC),
        "wall_s": time.perf_counter() - started + (elsewhere or training).earlier_s,
    }
    return _tables(job, key, network, training, measured, facts), weights


def _weights_of(network: Network, training: Training, job: Job) -> Weights:
    is_last = training.selected_epoch == job.recipe.epochs
    last = copy.deepcopy(network.state_dict())  # the measurement loads others into the network
    return Weights(last, None if is_last else training.selected_weights)


def _tables(
    job: Job,
    key: str,
    network: Network,
    training: Training,
    measured: Measured,
    facts: dict[str, Any],
) -> dict[str, Any]:
    names, layer_rows = coordinates(job, key), measured.counter.layer_rows()
    summary = cell_row(job, network, training, measured.last, measured.selected, layer_rows, facts)
    tables = {
        "steps": [names | row for row in step_rows(layer_rows, measured.last.accuracy)],
        "layers": [names | row for row in layer_rows],
        "epochs": [names | row for row in training.epoch_rows],
        "predictions": prediction_table(key, measured.last),
    }
    return tables | {"cells": [with_facts(names | summary, tables)]}
