"""Compare a NIR graph with the network it was exported from, on images."""

from dataclasses import dataclass, field
from typing import Final

import nir
from torch import Tensor

from codingbench.backbone import Network
from codingbench.export.execution import execute
from codingbench.export.graph import OUTPUT
from codingbench.export.signals import Refused
from codingbench.export.tracing import trace
from codingbench.training.evaluation import stream

TOLERANCE: Final = 1e-9
"""Largest accepted difference of a logit in double precision, relative to the largest logit.

Spikes must be equal."""

_BATCH_SIZE: Final = 4  # small, because all spikes of a batch are in memory twice


@dataclass
class Comparison:
    """Differences between a graph and its network on the same images.

    Args:
        images: number of images.
        spikes: number of spikes of the network.
        values: number of spikes that were possible: neurons x steps x images.
        different: number of values that differ, by the name of the neurons' node.
        logits: largest difference at any step, relative to the largest logit.
        predictions: number of images with the same prediction.
    """

    images: int = 0
    spikes: int = 0
    values: int = 0
    different: dict[str, int] = field(default_factory=dict)
    logits: float = 0.0
    predictions: int = 0


def compare(graph: nir.NIRGraph, network: Network, images: Tensor, seed: int) -> Comparison:
    """Run the network on raw images, and the graph on the values that enter it in the network.

    Both run in the precision of the network.

    Raises:
        ValueError: the graph cannot be executed.
    """
    generator = stream(seed, "export")
    found = Comparison()
    for batch in images.to(next(network.parameters()).dtype).split(_BATCH_SIZE):
        run = trace(network, batch, generator)
        outputs = execute(graph, run.inputs, float(graph.metadata["dt"]))
        for name, spk in run.spikes.items():
            found.spikes += int(spk.sum())
            found.values += spk.numel()
            wrong = int((outputs[name] != spk).sum())
            found.different[name] = found.different.get(name, 0) + wrong
        error = (outputs[OUTPUT] - run.logits).abs().max() / run.logits.abs().max()
        found.logits = max(found.logits, float(error))
        same = outputs[OUTPUT].mean(0).argmax(1) == run.logits.mean(0).argmax(1)
        found.predictions += int(same.sum())
        found.images += len(batch)
    return found


def check(graph: nir.NIRGraph, network: Network, images: Tensor, seed: int) -> Comparison:
    """Compare the graph with a network in double precision; return the comparison if they agree.

    Raises:
        Refused: a spike differs, or a logit by more than :data:`TOLERANCE`. The message names the
            first layer of neurons that differs.
    """
    try:
        found = compare(graph, network, images, seed)
    except (ValueError, RuntimeError) as error:  # torch raises these for mismatched shapes
        raise Refused(f"the exported graph cannot be executed: {error}") from error
    for name, wrong in found.different.items():
        if wrong:
            raise Refused(
                f"the exported graph and the network emit different spikes on {found.images} "
                f"images: {wrong:,} values differ in {name}, the first layer that differs"
            )
    if not found.logits <= TOLERANCE:
        raise Refused(
            f"the exported graph and the network have different logits on {found.images} images: "
            f"they differ by {found.logits:.1e} of the largest logit, at most {TOLERANCE:.0e} is "
            "allowed"
        )
    return found
