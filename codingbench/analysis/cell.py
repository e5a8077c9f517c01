"""Describe one cell in full, from its rows of the stored tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import pandas as pd

from codingbench.analysis.learning import signs_of
from codingbench.analysis.purity import audit
from codingbench.energy import EXACT_AND_PAPER, Pricing
from codingbench.runtime.formatting import records
from codingbench.schema import COUNTS, ELEMENT_COUNTS, VALUE_CLASSES

TABLES: Final = ("cells", "steps", "layers", "epochs")
"""The tables that :func:`describe` reads."""

_EPOCH_COLUMNS: Final = [
    "epoch",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "test_accuracy",
    "images_per_s",
    "wall_s",
]


def describe(
    tables: Mapping[str, pd.DataFrame], pricings: Sequence[Pricing] = EXACT_AND_PAPER
) -> dict[str, Any]:
    """Return everything that is known of one finished cell, as values that JSON can hold.

    Args:
        tables: the cell's rows of each of ``TABLES``. ``layers`` may be empty, because a store can
            be handed on without it.
        pricings: at least one, all with the same technology.

    Returns:
        ``cell`` (its row of the table ``cells``), ``signs`` (sentences of
        :func:`codingbench.analysis.learning.signs_of`), ``energy`` (the technology, and the
        convention of each energy column), ``steps``, ``layers``, ``purity`` (the fields of
        :class:`codingbench.analysis.purity.Purity`), ``other_operations`` (operations outside of
        synapses) and ``epochs``. Energies are in microjoules per image, operations per image.
        Without rows of ``layers``, ``purity`` and ``other_operations`` are None.
    """
    layers = records(_layers(tables["layers"]))
    return {
        "cell": records(tables["cells"])[0],
        "signs": signs_of(tables["cells"]),
        "energy": {
            "technology": asdict(pricings[0].technology),
            "conventions": {p.convention.column: p.convention.name for p in pricings},
        },
        "steps": records(_steps(tables["steps"].sort_values("step"), pricings)),
        "layers": layers,
        "purity": asdict(audit(tables["layers"])) if layers else None,
        "other_operations": _other_operations(layers) if layers else None,
        "epochs": records(tables["epochs"].sort_values("epoch")[_EPOCH_COLUMNS]),
    }


def describe_failure(failures: pd.DataFrame, key: str) -> dict[str, Any]:
    """Return ``failure``: the row of the table ``failures`` of one failed cell."""
    return {"failure": records(failures[failures["key"] == key])[0]}


def _steps(steps: pd.DataFrame, pricings: Sequence[Pricing]) -> pd.DataFrame:
    """Return what each step did, and the energy of an image that is classified after it."""
    so_far = steps[[*COUNTS]].cumsum().assign(images=steps["images"])
    energies = {pricing.convention.column: pricing.energy_uj(so_far) for pricing in pricings}
    code_rate = steps["code_nonzero"] / steps["code_values"]
    return steps[["step", "is_prefix", "accuracy", "firing_rate"]].assign(
        code_rate=code_rate, **energies
    )


def _layers(layers: pd.DataFrame) -> pd.DataFrame:
    """Return one row per layer and kind, in the order of execution: totals of all steps."""
    sides = ["effective", "dense"]
    rows = layers.assign(
        input_total=layers["input_rate"] * layers["input_values"],
        chances=layers["neurons"] * layers["images"],
        costliest=layers["input_class"].map({name: i for i, name in enumerate(VALUE_CLASSES)}),
        **{side: layers[[f"{side}_{c}" for c in VALUE_CLASSES]].sum(axis=1) for side in sides},
    )
    grouped = rows.groupby(["layer", "kind"], sort=False)
    counted = [*sides, "executions", *ELEMENT_COUNTS]
    sums = grouped[[*counted, "input_total", "input_values", "spikes", "chances"]].sum()
    table = grouped.agg(position=("position", "min"), costliest=("costliest", "max"))
    per_image = sums[counted].div(grouped["images"].max(), axis=0).add_suffix("_per_image")
    return (
        table.assign(
            input_class=table["costliest"].map(dict(enumerate(VALUE_CLASSES))),
            input_rate=sums["input_total"] / sums["input_values"],
            firing_rate=sums["spikes"] / sums["chances"],
        )
        .join(per_image)
        .sort_values("position")
        .drop(columns=["position", "costliest"])
        .reset_index()
    )


def _other_operations(layers: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return for each kind of operation its total, its layers, and the layer with the most."""
    operations = {}
    for name in ELEMENT_COUNTS:
        by_layer: Counter[str] = Counter()
        for row in layers:
            by_layer[row["layer"]] += row[f"{name}_per_image"]
        total, [(largest, most)] = by_layer.total(), by_layer.most_common(1)
        operations[name] = {
            "per_image": total,
            "num_layers": sum(count > 0 for count in by_layer.values()),
            "largest_layer": largest if total else None,
            "largest_share": most / total if total else None,
        }
    return operations
