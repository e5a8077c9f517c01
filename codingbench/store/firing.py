"""The firing rate of cells and steps: spikes of the backbone's neurons, for every coding.

Neurons inside an encoder change neither the spikes nor the number of neurons behind a rate, so that
the rates of two codings have the same base. They are in table ``layers`` and in every energy.

Parts before schema 6 counted the encoder's neurons, too. When such rows are read, their spikes,
neurons and rates are derived from ``layers``, which holds both as integers for each layer.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pandas as pd

SUMS: Final = ("spikes", "neurons", "encoder_spikes", "encoder_neurons")
"""Columns of ``cells`` and ``steps`` that follow from ``layers``, as ``firing_rate`` does."""

MOST_CELLS: Final = 1_000
"""The rows of ``layers`` of so many older cells are read at once, which bounds the memory."""


def is_in_backbone(layer: str) -> bool:
    """Return whether a layer is one of the backbone, not of the encoder, which also runs the stem.

    >>> is_in_backbone("backbone.head.neuron"), is_in_backbone("encoder:fft")
    (True, False)
    """
    return layer.partition(":")[0].partition(".")[0] != "encoder"


def sums(layer_rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the columns ``SUMS`` of the given rows of ``layers``, which belong to one cell."""
    neurons = [row for row in layer_rows if row["kind"] == "neuron"]
    found = {}
    for prefix, is_wanted in (("", True), ("encoder_", False)):
        rows = [row for row in neurons if is_in_backbone(row["layer"]) == is_wanted]
        found[f"{prefix}spikes"] = sum(row["spikes"] for row in rows)
        found[f"{prefix}neurons"] = sum({row["layer"]: row["neurons"] for row in rows}.values())
    return found


def rate(spikes: int, chances: int) -> float:
    """Return the firing rate of neurons that could spike ``chances`` times; 0 without neurons."""
    return spikes / chances if chances else 0.0


def older(rows: "pd.DataFrame") -> set[str]:
    """Return the keys of the cells whose rates have the base of parts before schema 6."""
    return set(rows.loc[rows["encoder_neurons"].isna(), "key"])


def rebased(rows: "pd.DataFrame", layers: "pd.DataFrame") -> "pd.DataFrame":
    """Return rows of ``cells`` or ``steps`` with the spikes, neurons and rates of the backbone.

    Args:
        rows: rows of older parts. Those of cells without rows of ``layers`` become null.
        layers: the rows of table ``layers`` of these cells.
    """
    by = ["key", "step"] if "step" in rows else ["key"]
    neurons = layers[layers["kind"] == "neuron"]
    known = rows["key"].isin(set(layers["key"]))
    found = _summed(neurons, by, rows).where(known)
    times = rows["images"] * (1 if "step" in rows else rows["num_steps"])
    chances = found["neurons"] * times
    rates = (found["spikes"] / chances).mask(chances == 0, 0.0)
    return rows.assign(**{name: found[name] for name in SUMS}, firing_rate=rates)


def _summed(neurons: "pd.DataFrame", by: list[str], rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return ``SUMS`` for each of ``rows``; a neuron that did not run at a step is still one."""
    in_backbone = neurons["layer"].map(is_in_backbone).astype(bool)
    found = rows[[]].copy()
    for prefix, part in (("", neurons[in_backbone]), ("encoder_", neurons[~in_backbone])):
        spikes = part.groupby(by)["spikes"].sum()
        number = part.drop_duplicates(["key", "layer"]).groupby("key")["neurons"].sum()
        at = rows["key"] if by == ["key"] else rows.set_index(by).index
        found[f"{prefix}spikes"] = spikes.reindex(at).fillna(0).to_numpy()
        found[f"{prefix}neurons"] = number.reindex(rows["key"]).fillna(0).to_numpy()
    return found[[*SUMS]]
