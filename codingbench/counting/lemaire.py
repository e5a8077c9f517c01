"""Count for the analytical energy model of Lemaire et al. (arXiv 2210.13107).

The formulas are those of SpikingJelly 2.0.0 (``LemaireEnergyProfiler``). A spike is added to each
output that it reaches, whose addresses and weights are read; a number is multiplied densely. Every
membrane is read, leaks and is written at each step. Inputs, weights, membranes and spikes are words
in buffers whose price grows with their size. As in the model, the buffers are those of one image,
and normalisation, pooling, sums and gates are not part of it.
"""

from bisect import bisect_left
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any, Final

from torch import Tensor

from codingbench.counting.tally import Counts, Tallies, Tally
from codingbench.schema import VALUE_CLASSES

_WORD: Final = 4  # bytes
_QUEUE: Final = 1000 * _WORD  # bytes of the queue of spikes between two layers
_SIZES: Final = (0, 8 * 1024, 32 * 1024, 1024 * 1024)
_PRICES: Final = (0.0, 2.5, 5.0, 25.0)


def byte_pj(size: int) -> float:
    """Return the picojoules of reading or writing one byte of a buffer of ``size`` bytes.

    >>> byte_pj(4096), byte_pj(20 * 1024), byte_pj(2**30)
    (1.25, 3.75, 25.0)
    """
    if size >= _SIZES[-1]:
        return _PRICES[-1]
    above = max(1, bisect_left(_SIZES, size))
    low, high = _PRICES[above - 1 : above + 1]
    share = (size - _SIZES[above - 1]) / (_SIZES[above] - _SIZES[above - 1])
    return low + (high - low) * share


@dataclass(frozen=True)
class Kernel:
    """The outputs of a convolution that one input reaches, disregarding the border."""

    addressed: int
    """Outputs whose address a spike needs: channels x positions of the kernel."""
    added: int
    """Outputs that a spike is added to: channels x positions, each side divided by the stride."""
    addresses: int
    """Addresses of the kernel where the input is numbers: all channels x positions."""


@dataclass(frozen=True)
class Shape:
    """The shape of a synaptic layer at one step of a batch."""

    images: int
    outputs: int
    """Output values of all images."""
    parameters: int
    """Weights and biases, which one buffer holds; in a product of activations, the other factor."""
    kernel: Kernel | None = None
    """None for a matrix product."""


def shape_of_convolution(args: tuple[Any, ...], output: Tensor, steps: int, images: int) -> Shape:
    """Return the shape of a convolution.

    Args:
        args: arguments of ``aten.convolution``.
        output: its result.
        steps: number of steps that it is the result of.
        images: number of images of the batch.
    """
    _, weight, bias, stride, _, _, is_transposed, _, groups = args
    sides = weight.shape[2:]
    strides = [1] * len(sides) if is_transposed else stride
    copies = weight.shape[1] if is_transposed else weight.shape[0] // groups
    added = prod(ceil(side / step) for side, step in zip(sides, strides, strict=True))
    kernel = Kernel(copies * prod(sides), copies * added, output.shape[1] * prod(sides))
    parameters = weight.numel() + (0 if bias is None else bias.numel())
    return Shape(images, output.numel() // steps, parameters, kernel)


def with_counts(tallies: Tallies, shape: Shape) -> Tallies:
    """Return the tallies of a synaptic layer, one per step, with the counts of this model."""
    return lambda: [_with_counts(tally, shape) for tally in tallies()]


def _with_counts(tally: Tally, shape: Shape) -> Tally:
    is_spikes = "dense_binary" in tally.counts
    found = _of_spikes(tally, shape) if is_spikes else _of_numbers(tally, shape)
    return replace(tally, counts=tally.counts | found)


def _of_spikes(tally: Tally, shape: Shape) -> Counts:
    spikes, biased = tally.nonzero, tally.counts["bias_adds"]
    added = addressed = tally.counts["effective_binary"]
    if shape.kernel is not None:
        added, addressed = spikes * shape.kernel.added, spikes * shape.kernel.addressed
    weights = (addressed + biased) * byte_pj(_WORD * shape.parameters)
    membranes = 2 * addressed * byte_pj(_WORD * shape.outputs // shape.images)
    return {
        "lemaire_acs": added + biased + addressed,
        "lemaire_macs": 2 * spikes if shape.kernel else 0,  # to find the first output
        "lemaire_memory_pj": _WORD * (spikes * byte_pj(_QUEUE) + weights + membranes),
    }


def _of_numbers(tally: Tally, shape: Shape) -> Counts:
    inputs, biased = tally.values, tally.counts["bias_adds"]
    dense = sum(tally.counts.get(f"dense_{kind}", 0) for kind in VALUE_CLASSES)
    addresses = shape.images * shape.kernel.addresses if shape.kernel else 0
    read = (dense if shape.kernel else inputs) * byte_pj(_WORD * inputs // shape.images)
    weights = (dense + biased) * byte_pj(_WORD * shape.parameters)
    return {
        "lemaire_acs": biased + inputs + shape.outputs + addresses,
        "lemaire_macs": dense,
        "lemaire_memory_pj": _WORD * (read + weights),
    }


def of_neurons(updates: int, spikes: int, images: int) -> Counts:
    """Return the counts of leaky neurons at one step.

    Args:
        updates: membrane updates of all images.
        spikes: spikes that they emit.
        images: number of images.
    """
    membranes = 2 * updates * byte_pj(_WORD * updates // images)
    return {
        "lemaire_acs": spikes,
        "lemaire_macs": updates,
        "lemaire_memory_pj": _WORD * (membranes + spikes * byte_pj(_QUEUE)),
    }
