"""Spike purity: which synaptic operations of a cell read spikes, and which layers must multiply.

A synapse whose input is a spike adds its weight. One whose input is a ``level`` or ``real`` (see
:mod:`codingbench.schema`) must multiply, which hardware built for spikes may not support.
Everything here follows from the rows of one cell in the table ``layers``.
"""

from dataclasses import dataclass
from typing import Final

import pandas as pd

from codingbench.analysis.bill import part_of
from codingbench.schema import VALUE_CLASSES

ON_IMAGE: Final = "the image itself"
CURRENTS: Final = "currents (analog)"
PARTLY_ZERO: Final = "partly zero (analog)"
GATED: Final = "gated spikes"
LEVELS: Final = "sums or means of spikes"

_NUMBERS: Final = ("level", "real")
_CURRENT_SHARE: Final = 0.99  # least share of non-zero values; currents are 0 only by chance
_SPIKES_LEFT: Final = 0.99  # least share of a neuron's spikes that a gate leaves


@dataclass(frozen=True)
class NumberLayer:
    """A synaptic layer whose input is not spikes, so that it must multiply."""

    layer: str
    input_classes: tuple[str, ...]
    """Those of ``level`` and ``real`` that occurred."""
    operations_per_image: float
    """Effective synaptic operations on levels and reals."""
    share: float
    """These operations as a share of all effective ones of the cell, in [0, 1]."""
    nonzero_share: float
    """Share of non-zero values in its input, in [0, 1]."""
    input: str
    """The kind of its input: one of the constants above."""


@dataclass(frozen=True)
class Purity:
    """The inputs of all synapses of a cell."""

    operations_per_image: dict[str, float]
    """Effective synaptic operations by value class of their input."""
    shares: dict[str, float | None]
    """The same as shares of their sum, in [0, 1]; None if there is no operation at all."""
    layers: tuple[NumberLayer, ...]
    """The layers that must multiply, the one with the most such operations first."""
    spike_driven: bool
    """True if no layer must multiply, except for the first one on the image itself."""


def audit(layers: pd.DataFrame) -> Purity:
    """Return the purity of a cell.

    Args:
        layers: its rows of the table ``layers``, at least one.
    """
    synapses = layers[layers["kind"] == "synapse"]
    images = int(layers["images"].max())
    operations = {
        name: float(synapses[f"effective_{name}"].sum()) / images for name in VALUE_CLASSES
    }
    total = sum(operations.values())
    audited = (
        _number_layer(name, rows, layers, images, total)
        for name, rows in synapses.sort_values("position").groupby("layer", sort=False)
    )
    found = [layer for layer in audited if layer is not None]
    return Purity(
        operations_per_image=operations,
        shares={name: n / total if total else None for name, n in operations.items()},
        layers=tuple(sorted(found, key=lambda layer: -layer.operations_per_image)),
        spike_driven=all(layer.input == ON_IMAGE for layer in found),
    )


def _number_layer(
    name: object, rows: pd.DataFrame, layers: pd.DataFrame, images: int, total: float
) -> NumberLayer | None:
    """Return the layer with these rows of ``layers`` if it must multiply, otherwise None."""
    by_class = {c: float(rows[f"effective_{c}"].sum()) / images for c in _NUMBERS}
    classes = tuple(c for c, operations in by_class.items() if operations)
    if not classes:
        return None
    # Steps at which the layer reads only spikes say nothing about its other input.
    costliest = rows[rows[f"effective_{classes[-1]}"] > 0]
    nonzero_share = float(costliest["input_nonzero"].sum() / costliest["input_values"].sum())
    operations = sum(by_class.values())
    return NumberLayer(
        layer=str(name),
        input_classes=classes,
        operations_per_image=operations,
        share=operations / total,
        nonzero_share=nonzero_share,
        input=LEVELS if "real" not in classes else _real_input(rows, layers, nonzero_share),
    )


def _real_input(rows: pd.DataFrame, layers: pd.DataFrame, nonzero_share: float) -> str:
    """Return the kind of a real input, judging by the layer's rows and those of earlier layers."""
    before = layers[layers["position"] < rows["position"].min()]
    is_stem = part_of(rows["layer"].iloc[0]) == "stem"
    # The stem of a pixel encoder runs after the code and reads it instead of the image.
    if is_stem and not before["kind"].isin(["synapse", "code"]).any():
        return ON_IMAGE
    if nonzero_share >= _CURRENT_SHARE:
        return CURRENTS
    # A gate scales spikes and adds none: there are as many non-zero values as the neuron emitted
    # spikes, except for the few where the sigmoid itself is 0 in floating point.
    spikes = before[before["kind"] == "neuron"].groupby("layer")["spikes"].sum()
    left = rows["input_nonzero"].sum() / spikes
    is_gated = (before["kind"] == "gate").any() and left.between(_SPIKES_LEFT, 1).any()
    return GATED if is_gated else PARTLY_ZERO
