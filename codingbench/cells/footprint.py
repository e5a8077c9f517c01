"""What a network's size tells before it is trained: the work of its neurons, and its memory."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from snntorch._neurons.neurons import SpikingNeuron
from torch import nn

from codingbench.backbone import Network
from codingbench.cells.grid import Job
from codingbench.neurons.fused import is_available
from codingbench.training.loop import stream

_PROCESS_MB = 700.0  # Python, torch and its libraries
_COPIES = 1.5  # of every activation at the peak, the largest one's gradients included
_DECODER_MB = 300.0  # a process that decodes photographs, and the one it is forked from
_BATCHES_AHEAD = 4  # of streamed images: at the decoder, ready, and in use
_LEAST_UPDATES = 2e10
"""Membrane updates of a training from which on compiled neurons save more than compiling costs."""


@dataclass(frozen=True)
class Footprint:
    """Of one image in all its steps."""

    neuron_updates: int
    values: int  # that layers and neurons emit


def footprint(network: Network, job: Job) -> Footprint:
    """Measured on one black image, in evaluation mode, in which the network is left."""
    updates = values = 0

    def hear(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal updates, values
        spk = output[0] if isinstance(output, tuple) else output
        if isinstance(spk, torch.Tensor):
            values += spk.numel()
            updates += spk.numel() if isinstance(module, SpikingNeuron) else 0

    device = next(network.parameters()).device
    leaves = [m for m in network.modules() if isinstance(m, SpikingNeuron) or not [*m.children()]]
    handles = [leaf.register_forward_hook(hear) for leaf in leaves]
    try:
        with torch.no_grad():
            black = torch.zeros(1, *job.info.shape, device=device)
            network.eval()(black, stream(0, "footprint", device))
    finally:
        for handle in handles:
            handle.remove()
    return Footprint(updates, values)


def chosen_backend(network: Network, job: Job, neurons: str = "auto") -> str:
    """``compiled`` where the training is long enough to win the compiling back, else ``eager``.

    A function of the cell and the kind of device alone, so that the same cell is always run by the
    same backend. On CUDA ``fused`` where Triton is installed, for ``auto`` and ``compiled``.
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
        return "eager"  # a fault of the plug-in, which the training will name
    return "compiled" if updates >= _LEAST_UPDATES else "eager"


def memory_mb(job: Job, network: Network, size: Footprint) -> float:
    """About what a process needs to train the cell on a CPU, in 2^20 bytes."""
    cell, image_bytes = job.cell, math.prod(job.info.shape)
    numbers = _COPIES * size.values * cell.micro_batch
    numbers += 5 * sum(p.numel() for p in network.parameters())  # gradients, moments, the best
    crops = job.recipe.augment.resized_crop is not None
    trains_streamed = job.info.is_streamed(cell.train_samples, crops)
    tests_streamed = job.info.is_streamed(cell.test_samples, crops=False)
    streamed = _BATCHES_AHEAD * cell.batch_size
    # validation images are held out by copying
    images = streamed if trains_streamed else 2 * cell.train_samples
    images += streamed if tests_streamed else cell.test_samples
    decoders = _DECODER_MB if trains_streamed or tests_streamed else 0.0
    return _PROCESS_MB + decoders + (4 * numbers + images * image_bytes) / 2**20
