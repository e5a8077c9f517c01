"""Whether a graph gives what its network gives, on images."""

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
"""Of a logit in double precision, relative to the largest; spikes must be equal."""

_AT_ONCE: Final = 4  # images, all of whose spikes are in memory twice


@dataclass
class Comparison:
    """A graph and its network on the same images, in the network's precision.

    Args:
        images: how many.
        spikes: how many the network had.
        values: how many there could have been: neurons x steps x images.
        different: of the values, by the neurons' node, those that are not the same.
        logits: the largest difference at any step, relative to the largest logit.
        predictions: how many are the same.
    """

    images: int = 0
    spikes: int = 0
    values: int = 0
    different: dict[str, int] = field(default_factory=dict)
    logits: float = 0.0
    predictions: int = 0


def compare(graph: nir.NIRGraph, network: Network, images: Tensor, seed: int) -> Comparison:
    """Run both on raw images; the graph gets what enters it in the network.

    Raises:
        ValueError: the graph cannot be executed.
    """
    generator = stream(seed, "export")
    found = Comparison()
    for batch in images.to(next(network.parameters()).dtype).split(_AT_ONCE):
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
    """The comparison, if it is of a network in double precision whose every spike comes out equal.

    Raises:
        Refused: anything differs; the first neuron that does is named.
    """
    try:
        found = compare(graph, network, images, seed)
    except (ValueError, RuntimeError) as error:  # torch's, of shapes that do not fit
        raise Refused(f"the graph, read back, cannot be executed: {error}") from error
    for name, wrong in found.different.items():
        if wrong:
            raise Refused(
                f"the graph, read back, gives other spikes than the network: {wrong:,} in {name}, "
                f"the first neurons that differ, on {found.images} images"
            )
    if not found.logits <= TOLERANCE:
        raise Refused(
            f"the graph, read back, gives other logits than the network: a difference of "
            f"{found.logits:.1e} of the largest on {found.images} images, expected {TOLERANCE:.0e}"
        )
    return found
