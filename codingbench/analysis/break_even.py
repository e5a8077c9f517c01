"""Compare the energy of a spiking network with that of an ANN of the same shape.

The ANN is the stem and backbone, run once with ReLU instead of neurons and without the coding. All
its synaptic operations are dense multiply-accumulates. The quantised ANN has activations of
``ceil(log2(T + 1))`` bits: as many values as T steps of a rate code can represent (arXiv
2409.08290). Neither ANN was trained, so their accuracy is unknown.

The break-even rate has the base of the firing rate beside it, the backbone's neurons. It assumes
that all spike-driven operations, those of the encoder's spikes too, grow in proportion to it.
"""

from dataclasses import replace
from typing import Any, Final

import pandas as pd

from codingbench.analysis.bill import part_of
from codingbench.analysis.leaderboard import COLUMNS, seed_means
from codingbench.analysis.lower_bounds import known_energies
from codingbench.energy import COMPARED, DEFAULT_PRICING, Pricing, Technology
from codingbench.errors import SpecError
from codingbench.schema import COUNTS, VALUE_CLASSES

SPIKE_DRIVEN: Final = (
    "effective_binary",
    "effective_signed",
    "zero_weight_acs",
    "paper_acs",
    "syops_acs",
)
"""The counts that are proportional to the firing rate; all others do not depend on it."""

ANN_COLUMNS: Final[dict[str, str]] = {
    "fixed_uj": "the part of energy_uj that does not depend on the firing rate",
    "ann_uj": "microjoules per image of the ANN of the same shape",
    "ann_ratio": "energy_uj / ann_uj; null where energies are lower bounds",
    "ann_break_even_rate": "firing rate at which energy_uj would be ann_uj; above 1 the spiking "
    "network is cheaper at any rate; null where it costs more at any rate, or never spiked, or "
    "energies are lower bounds",
    "ann_bits": "bits of the quantised ANN's activations",
    "qann_uj": "microjoules per image of the quantised ANN",
    "qann_ratio": "energy_uj / qann_uj",
    "qann_break_even_rate": "as ann_break_even_rate, against the quantised ANN",
    "input_density": "share of non-zero values among those that the coding emits, over all steps; "
    "mean over seeds; null where the table layers has no row of the code",
}
"""The columns that :func:`with_ann` adds to the leaderboard's."""


def with_ann(
    table: pd.DataFrame,
    cells: pd.DataFrame,
    layers: pd.DataFrame,
    pricing: Pricing = DEFAULT_PRICING,
) -> pd.DataFrame:
    """Return the rows with the columns ``ANN_COLUMNS`` added.

    Args:
        table: from :func:`codingbench.analysis.leaderboard.rows`.
        cells: the table ``cells`` that ``table`` was made from.
        layers: the table ``layers`` of the cells in ``table``.
        pricing: that of ``table``, for the ANNs too.

    Raises:
        SpecError: the convention has prices of its own, which are those of spiking networks.
    """
    if pricing.convention.own_prices:
        raise SpecError(
            f"the energy convention {pricing.convention.name!r} has no ANN to compare with; "
            f"expected one of {', '.join(COMPARED)}, or file.py:variable"
        )
    chip, price = pricing.technology, pricing.convention.picojoules
    silent = pricing.energy_uj(cells.assign(**dict.fromkeys(SPIKE_DRIVEN, 0)))
    fixed = seed_means(table, silent.to_frame("fixed_uj").set_axis(cells["key"]))
    counts = seed_means(table, ann_counts(layers)).to_dict("records")
    chips = [quantised(chip, num_steps) for num_steps in table["num_steps"]]
    density = seed_means(table, input_density(layers).reindex(cells["key"]).to_frame())
    compared = (
        table.join(fixed)
        .join(density)
        .assign(
            ann_uj=[float(price(row, chip)) * 1e-6 for row in counts],
            ann_bits=[activation_bits(chip, num_steps) for num_steps in table["num_steps"]],
            qann_uj=[float(price(row, own)) * 1e-6 for row, own in zip(counts, chips, strict=True)],
        )
    )
    for ann in ("ann", "qann"):
        ann_uj = compared[f"{ann}_uj"]
        known_uj = known_energies(compared)
        compared[f"{ann}_ratio"] = known_uj / ann_uj.where(ann_uj > 0)
        compared[f"{ann}_break_even_rate"] = _break_even_rate(compared, known_uj, ann_uj)
    return compared[[*COLUMNS, *ANN_COLUMNS]]


def ann_counts(layers: pd.DataFrame) -> pd.DataFrame:
    """Return for each key the counts of one image in the ANN.

    They are those of the mean step of each layer outside the coding: the layer's counts divided by
    the number of its steps and by the images, whether it ran once for all steps or at each step.
    """
    shape = layers[layers["layer"].map(part_of) != "coding"]
    steps = shape.groupby(["key", "layer", "kind"])["step"].transform("nunique")
    is_synapse = shape["kind"] == "synapse"
    dense = shape[[f"dense_{name}" for name in VALUE_CLASSES]].sum(axis=1).where(is_synapse, 0)
    kept = ["bias_adds", "norm_macs", "pool_ops", "residual_adds", "gate_muls"]
    per_step = shape[kept].assign(macs=dense).div(steps * shape["images"], axis=0)
    one = per_step.groupby(shape["key"]).sum()
    macs = one.pop("macs")
    return pd.DataFrame(0.0, index=one.index, columns=list(COUNTS)).assign(
        effective_real=macs,
        dense_real=macs,
        paper_first_macs=macs,
        syops_macs=macs + one["bias_adds"] + 2 * one["norm_macs"] + one["pool_ops"],
        **one,
    )


def input_density(layers: pd.DataFrame) -> "pd.Series[float]":
    """Return for each key the share of non-zero values that the coding emits, in [0, 1].

    The code is what the neurons behind it read: spikes of pixels for rate and latency, currents or
    spikes of the stem for codings of features.
    """
    code = layers[layers["kind"] == "code"]
    values = (code["neurons"] * code["images"]).groupby(code["key"]).sum()
    emitted = code.groupby("key")["spikes"].sum()
    return (emitted / values.where(values > 0)).rename("input_density")


def activation_bits(chip: Technology, num_steps: int) -> int:
    """Return ``ceil(log2(T + 1))``, but at most the bits of the technology.

    >>> from codingbench.energy import TECHNOLOGIES
    >>> [activation_bits(TECHNOLOGIES["45nm-int8"], num_steps) for num_steps in (1, 3, 4, 1000)]
    [1, 2, 3, 8]
    """
    return min(int(num_steps).bit_length(), chip.bits)


def quantised(chip: Technology, num_steps: int) -> Technology:
    """Return the technology with a multiplier for activations of fewer bits.

    ``mac_pj' = (mac_pj - ac_pj) * bits' / bits + ac_pj``. The proportionality is an assumption.
    Weights, sums and memory keep their width.
    """
    share = activation_bits(chip, num_steps) / chip.bits
    return replace(chip, mac_pj=(chip.mac_pj - chip.ac_pj) * share + chip.ac_pj)


def _break_even_rate(
    rows: pd.DataFrame, energy_uj: "pd.Series[Any]", ann_uj: "pd.Series[Any]"
) -> "pd.Series[Any]":
    """Solve ``fixed + slope * r = ann`` for r; null where the fixed part alone costs as much."""
    spent = energy_uj - rows["fixed_uj"]
    slope = spent.where(spent > 0) / rows["firing_rate"].where(rows["firing_rate"] > 0)
    return (ann_uj - rows["fixed_uj"]).where(ann_uj > rows["fixed_uj"]) / slope
