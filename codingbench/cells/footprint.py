"""The size of a network before training: its membrane updates and the memory it needs."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from snntorch._neurons.neurons import SpikingNeuron
from torch import nn

from codingbench.backbone import Network
from codingbench.cells.grid import Job
from codingbench.neurons.fused import is_available
from codingbench.training.evaluation import stream

_PROCESS_MB = 700.0  # Python, torch and its libraries
_COPIES = 1.5  # copies of each activation at the peak, with the gradients of the largest
_DECODER_MB = 300.0  # a process that decodes photographs, and the one it is forked from
_BATCHES_AHEAD = 4  # streamed batches in memory: being decoded, ready, and in use
_LEAST_UPDATES = 2e10
"""Membrane updates of a training above which compiled neurons save more time than they cost."""


@dataclass(frozen=True)
class Footprint:
    """Membrane updates, and values emitted by layers and neurons, for one image in T steps."""

    neuron_updates: int
    values: int


def footprint(network: Network, job: Job) -> Footprint:
    """Measure the network on one black image; it is left in evaluation mode."""
    updates = values = 0

    def count(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal updates, values
        spk = output[0] if isinstance(output, tuple) else output
        if isinstance(spk, torch.Tensor):
            values += spk.numel()
            updates += spk.numel() if isinstance(module, SpikingNeuron) else 0

    device = next(network.parameters()).device
    leaves = [m for m in network.modules() if isinstance(m, SpikingNeuron) or not [*m.children()]]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        with torch.no_grad():
            black = torch.zeros(1, *job.info.shape, device=device)
            network.eval()(black, stream(0, "footprint", device))
    finally:
        for handle in handles:
            handle.remove()
    return Footprint(updates, values)


def chosen_backend(network: Network, job: Job, neurons: str = "auto") -> str:
    """Return the backend that is to run the neurons of a cell.

    On CUDA it is ``fused`` where Triton is installed, unless ``neurons`` is ``eager``. On a CPU,
    ``auto`` is ``compiled`` if the training is long enough to repay compiling, else ``eager``. The
    choice depends on the cell and the kind of device only, so that the same cell always has the
    same backend.
    """
    device = next(network.parameters()).device
    if neurons != "eager" and device.type == "cuda" and is_available(device):
        return "fused"
    if neurons != "auto":
        return neurons
    if device.type != "cpu":
        return "eager"
    images = job.cell.epochs * job.cell.train_samples
    try:
        updates = footprint(network, job).neuron_updates * images
    except Exception:
        return "eager"  # an error of the plug-in, which the training will report
    return "compiled" if updates >= _LEAST_UPDATES else "eager"


def memory_mb(job: Job, network: Network, size: Footprint) -> float:
    """Estimate the memory that a process needs to train the cell on a CPU, in 2^20 bytes."""
    cell, image_bytes = job.cell, math.prod(job.info.shape)
    numbers = _COPIES * size.values * cell.micro_batch
    numbers += 5 * sum(p.numel() for p in network.parameters())  # with gradients, moments, best
    crops = job.recipe.augment.resized_crop is not None
    trains_streamed = job.info.is_streamed(cell.train_samples, crops)
    tests_streamed = job.info.is_streamed(cell.test_samples, crops=False)
    streamed = _BATCHES_AHEAD * cell.batch_size
    # validation images are held out by copying
    images = streamed if trains_streamed else 2 * cell.train_samples
    images += streamed if tests_streamed else cell.test_samples
    decoders = _DECODER_MB if trains_streamed or tests_streamed else 0.0
    return _PROCESS_MB + decoders + (4 * numbers + images * image_bytes) / 2**20
