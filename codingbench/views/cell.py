"""One cell in full: what ``codingbench show`` prints."""

import difflib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import pandas as pd
from rich.console import Group

from codingbench.analysis.purity import audit
from codingbench.energy import EXACT_AND_PAPER, Pricing
from codingbench.errors import SpecError, unknown
from codingbench.runtime.formatting import records
from codingbench.schema import COUNTS, ELEMENT_COUNTS, VALUE_CLASSES
from codingbench.store.folder import Store
from codingbench.store.plausible import read
from codingbench.views.cell_tables import render

_MIN_PREFIX: Final = 4
_EPOCH_COLUMNS: Final = [
    "epoch",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "images_per_s",
    "wall_s",
]


def present(
    store: Store,
    cell: str,
    pricings: Sequence[Pricing] = EXACT_AND_PAPER,
    form: str = "table",
) -> str | Group:
    """A cell as JSON text, or for the format ``table`` to be printed.

    Args:
        store: where the cell is.
        cell: its key, or the beginning of it.
        pricings: of the energies, at least one, their technology the same.
        form: ``table`` or ``json``.

    Raises:
        SpecError: no such format; no such cell, or several.
        StoreError: the store cannot be read.
    """
    if form not in FORMATS:
        raise SpecError(unknown("format", form, FORMATS))
    return FORMATS[form](describe(store, find(store, cell), pricings))


def find(store: Store, cell: str) -> str:
    """The key that begins with ``cell``, of a finished or failed cell.

    Raises:
        SpecError: ``cell`` is shorter than 4 characters, or no key or several begin with it.
    """
    keys = sorted(store.finished() | store.failed())
    if cell in keys:
        return cell
    if len(cell) < _MIN_PREFIX:
        raise SpecError(
            f"expected a key or its first {_MIN_PREFIX} or more characters, got {cell!r}"
        )
    candidates = [key for key in keys if key.startswith(cell)]
    if not candidates:
        nearest = ", ".join(difflib.get_close_matches(cell, keys, n=3, cutoff=0.0))
        known = f"nearest of {len(keys)}: {nearest}" if keys else "it holds no cell"
        raise SpecError(f"no cell {cell!r} in {str(store.folder)!r}; {known}")
    if len(candidates) > 1:
        raise SpecError(f"{cell!r} is the beginning of several cells: {', '.join(candidates)}")
    return candidates[0]


def describe(
    store: Store,
    key: str,
    pricings: Sequence[Pricing] = EXACT_AND_PAPER,
) -> dict[str, Any]:
    """All that the store knows of the cell ``key``, as values that JSON can hold.

    Returns:
        ``cell`` (the row of the table ``cells``), ``energy`` (how the steps are priced), ``steps``,
        ``layers``, ``purity`` (:mod:`codingbench.analysis.purity`), ``other_operations`` (outside
        of synapses) and ``epochs``; of a failed cell only ``failure``. Energies are in microjoules
        per image, operations per image. Without rows of table ``layers``, as in a store handed on
        without it, ``purity`` and ``other_operations`` are None.

    Raises:
        StoreError: the store cannot be read.
    """
    names = {pricing.convention.column: pricing.convention.name for pricing in pricings}
    if key in store.failed():
        failures = read(store, "failures")
        return {"failure": records(failures[failures["key"] == key])[0]}
    steps = read(store, "steps", [key]).sort_values("step")
    epochs = read(store, "epochs", [key]).sort_values("epoch")
    rows = read(store, "layers", [key])
    layers = records(_layers(rows))
    return {
        "cell": records(read(store, "cells", [key]))[0],
        "energy": {"technology": asdict(pricings[0].technology), "conventions": names},
        "steps": records(_steps(steps, pricings)),
        "layers": layers,
        "purity": asdict(audit(rows)) if layers else None,
        "other_operations": _other_operations(layers) if layers else None,
        "epochs": records(epochs[_EPOCH_COLUMNS]),
    }


def _steps(steps: pd.DataFrame, pricings: Sequence[Pricing]) -> pd.DataFrame:
    """Per step what the step did, and the energy of an image classified after it."""
    so_far = steps[[*COUNTS]].cumsum().assign(images=steps["images"])
    energies = {p.convention.column: p.energy_uj(so_far) for p in pricings}
    code_rate = steps["code_nonzero"] / steps["code_values"]
    return steps[["step", "is_prefix", "accuracy", "firing_rate"]].assign(
        code_rate=code_rate, **energies
    )


def _layers(layers: pd.DataFrame) -> pd.DataFrame:
    """Per layer and kind, in the order of execution, totals over all steps per image."""
    sides = ["effective", "dense"]
    rows = layers.assign(
        input_total=layers["input_rate"] * layers["input_values"],
        chances=layers["neurons"] * layers["images"],
        dearest=layers["input_class"].map({name: i for i, name in enumerate(VALUE_CLASSES)}),
        **{side: layers[[f"{side}_{c}" for c in VALUE_CLASSES]].sum(axis=1) for side in sides},
    )
    grouped = rows.groupby(["layer", "kind"], sort=False)
    counted = [*sides, "executions", *ELEMENT_COUNTS]
    sums = grouped[[*counted, "input_total", "input_values", "spikes", "chances"]].sum()
    table = grouped.agg(position=("position", "min"), dearest=("dearest", "max"))
    per_image = sums[counted].div(grouped["images"].max(), axis=0).add_suffix("_per_image")
    return (
        table.assign(
            input_class=table["dearest"].map(dict(enumerate(VALUE_CLASSES))),
            input_rate=sums["input_total"] / sums["input_values"],
            firing_rate=sums["spikes"] / sums["chances"],
        )
        .join(per_image)
        .sort_values("position")
        .drop(columns=["position", "dearest"])
        .reset_index()
    )


def _other_operations(layers: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per kind of operation the total, in how many layers, and the layer with the most."""
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


FORMATS: Final[dict[str, Callable[[dict[str, Any]], str | Group]]] = {
    "table": render,
    "json": lambda description: json.dumps(description, indent=2, allow_nan=False) + "\n",
}
"""What ``--format`` takes."""
