"""Spike purity: which synaptic operations of a cell read spikes, and which layers multiply numbers.

A synapse whose input is a spike adds its weight; one whose input is a ``level`` or ``real`` (see
:mod:`codingbench.schema`) must multiply, on hardware that is built for spikes or not at all. All
that is said here follows from the rows of one cell in the table ``layers``.
"""

from dataclasses import dataclass
from typing import Final

import pandas as pd

from codingbench.schema import VALUE_CLASSES

ON_IMAGE: Final = "the image itself"
CURRENTS: Final = "currents (analog)"
PARTLY_ZERO: Final = "partly zero (analog)"
GATED: Final = "gated spikes"
LEVELS: Final = "sums or means of spikes"

_NUMBERS: Final = ("level", "real")
_CURRENT_SHARE: Final = 0.99  # of values not 0; currents are 0 by chance alone
_SPIKES_LEFT: Final = 0.99  # of the spikes of a neuron, by a gate


@dataclass(frozen=True)
class NumberLayer:
    """A synaptic layer that multiplies numbers."""

    layer: str
    input_classes: tuple[str, ...]
    """Of ``level`` and ``real`` those seen."""
    operations_per_image: float
    """Effective ones on levels and reals."""
    share: float
    """Of all effective synaptic operations of the cell, in [0, 1]."""
    nonzero_share: float
    """Of its input values, in [0, 1]."""
    input: str
    """What it reads: one of the constants above."""


@dataclass(frozen=True)
class Purity:
    """What the synapses of a cell read."""

    operations_per_image: dict[str, float]
    """Effective synaptic operations by value class of their input."""
    shares: dict[str, float | None]
    """The same as shares of their sum, in [0, 1]; None where there is no operation at all."""
    layers: tuple[NumberLayer, ...]
    """The layers that multiply numbers, the one with the most such operations first."""
    spike_driven: bool
    """Whether there is no such layer, or none but the first, on the image itself."""


def audit(layers: pd.DataFrame) -> Purity:
    """The purity of a cell whose rows of table ``layers`` these are, at least one."""
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
    """The layer with these rows of ``layers``, if it multiplies numbers."""
    by_class = {c: float(rows[f"effective_{c}"].sum()) / images for c in _NUMBERS}
    classes = tuple(c for c, operations in by_class.items() if operations)
    if not classes:
        return None
    # At some steps a layer may read spikes, and these say nothing about its numbers.
    dearest = rows[rows[f"effective_{classes[-1]}"] > 0]
    nonzero_share = float(dearest["input_nonzero"].sum() / dearest["input_values"].sum())
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
    """What a layer with real input reads, from its own rows and those of what ran before it."""
    before = layers[layers["position"] < rows["position"].min()]
    is_stem = f"{rows['layer'].iloc[0]}.".startswith("encoder.stem.")
    # The stem of a coding of pixels runs after the code, and reads it instead of the image.
    if is_stem and not before["kind"].isin(["synapse", "code"]).any():
        return ON_IMAGE
    if nonzero_share >= _CURRENT_SHARE:
        return CURRENTS
    # A gate scales spikes and makes none: as many values are not 0 as a neuron emitted spikes, but
    # for the few where a sigmoid itself is 0 in floating point.
    spikes = before[before["kind"] == "neuron"].groupby("layer")["spikes"].sum()
    left = rows["input_nonzero"].sum() / spikes
    is_gated = (before["kind"] == "gate").any() and left.between(_SPIKES_LEFT, 1).any()
    return GATED if is_gated else PARTLY_ZERO
