"""``codingbench show``: one cell in full."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from codingbench.analysis import cell as analysis
from codingbench.analysis.leaderboard import latest_of
from codingbench.analysis.selection import EVERYTHING, Selection
from codingbench.energy import CONVENTIONS, EXACT_AND_PAPER, Pricing
from codingbench.errors import SpecError, printable
from codingbench.runtime.formatting import at_least, first_few, three_digits
from codingbench.schema import COORDINATES, COUNTS
from codingbench.store.absence import of_folder
from codingbench.store.folder import Store
from codingbench.store.learning import read_cells
from codingbench.store.lookup import find
from codingbench.store.plausible import read
from codingbench.views.finished import finished_cells
from codingbench.views.table import NONE, Column, field, properties, rich_table
from codingbench.views.writers import DOCUMENT_FORMATS, check_format, written_document

_Row = Mapping[str, Any]
_MOST_ENERGIES: Final = 6  # columns of energy that 80 columns hold beside the accuracy


def present(
    store: Store,
    cell: str,
    pricings: Sequence[Pricing] = EXACT_AND_PAPER,
    form: str = "table",
    selection: Selection = EVERYTHING,
) -> str | RenderableType:
    """Return a cell as JSON text, or for the format ``table`` to be printed.

    Args:
        store: the results.
        cell: the cell's key, or the beginning of it; or its coding.
        pricings: at least one, all with the same technology.
        form: ``table`` or ``json``.
        selection: tells the cells of a coding apart.

    Raises:
        SpecError: no such format exists; no cell or several cells match.
        StoreError: the store cannot be read.
    """
    check_format(form, DOCUMENT_FORMATS)
    description = describe(store, key_of(store, cell, selection), pricings)
    return written_document(description, lambda: render(description), form)


def key_of(store: Store, cell: str, selection: Selection) -> str:
    """Return the key that a user names: by its beginning, or by the coding and a selection.

    Raises:
        SpecError: no cell or several cells match.
    """
    is_key = set(cell) <= set("0123456789abcdef") or not store.finished()
    if is_key and not selection:
        return find(store, cell)
    found = latest_of(replace(selection, encoders=(cell,)).of(finished_cells(store)))
    if len(found) > 1:
        differing = (
            f"{name}={first_few(map(str, sorted(found[name].unique())))}"
            for name in COORDINATES
            if name != "key" and found[name].nunique() > 1
        )
        raise SpecError(
            f"{len(found):,} cells of {cell!r} fit: choose one by {', '.join(differing)}; or by "
            f"its key, as codingbench list cells{of_folder(*store.folders)} shows it"
        )
    return str(found["key"].iloc[0])


def describe(
    store: Store, key: str, pricings: Sequence[Pricing] = EXACT_AND_PAPER
) -> dict[str, Any]:
    """Read a cell and describe it; see :func:`codingbench.analysis.cell.describe`.

    Raises:
        StoreError: the store cannot be read.
    """
    if key in store.failed():
        return analysis.describe_failure(read(store, "failures"), key)
    tables = {name: read(store, name, [key]) for name in analysis.TABLES if name != "cells"}
    return analysis.describe({"cells": read_cells(store, [key]), **tables}, pricings)


def render(description: dict[str, Any]) -> Group:
    """Render a description as tables, with numbers rounded and names never cut."""
    if "failure" in description:
        failure = dict(description["failure"])
        lines = (failure.pop("traceback") or "").splitlines()
        traceback = Text("\n".join(map(printable, lines)))
        return Group(Text("failed cell", style="bold"), _listing(failure), Text(), traceback)
    parts = (
        (Text(title, style="bold"), *section(description), Text())
        for title, section in _SECTIONS.items()
    )
    return Group(*(part for section in parts for part in section))


def _cell(description: dict[str, Any]) -> Iterator[RenderableType]:
    cell = description["cell"]
    for sign in description["signs"]:
        yield Text(f"warning: {sign}", style="bold red")
    yield _listing({name: value for name, value in cell.items() if name not in COUNTS})


def _steps(description: dict[str, Any]) -> Iterator[RenderableType]:
    conventions: dict[str, str] = description["energy"]["conventions"]
    shown = partial(at_least, is_lower_bound=bool(description["cell"]["uncounted"]))
    energies = [
        field("µJ\n" + name.replace("-", "-\n"), column, shown)
        for column, name in conventions.items()
    ]
    yield rich_table(description["steps"], [*_STEPS, *energies[:_MOST_ENERGIES]])
    if further := energies[_MOST_ENERGIES:]:
        yield rich_table(description["steps"], [_STEPS[0], *further])
    yield from _prices(description["energy"]["technology"], conventions, description["steps"])


def _prices(
    chip: dict[str, Any], conventions: dict[str, str], steps: list[dict[str, Any]]
) -> Iterator[RenderableType]:
    """Say what operations cost, and which energies are unknown."""
    own = {n: CONVENTIONS[n].own_prices for n in conventions.values() if n in CONVENTIONS}
    for name, prices in own.items():
        if prices:
            yield Text(f"µJ per image by {name}: {prices}", style="dim")
    for column, name in conventions.items():
        if any(step[column] is None for step in steps):
            yield Text(f"—: an earlier version counted this cell, without what {name} needs")
    if own and all(own.get(name) for name in conventions.values()):
        return
    per_byte = f", {chip['byte_pj']} pJ per byte" if "memory" in conventions.values() else ""
    prices = f"{chip['mac_pj']} pJ per MAC, {chip['ac_pj']} pJ per AC{per_byte}"
    yield Text(f"µJ per image at {chip['name']}: {prices}", style="dim")


def _layers(description: dict[str, Any]) -> Iterator[RenderableType]:
    uncounted = description["cell"]["uncounted"]
    if uncounted:
        names = ", ".join(name.strip() for name in uncounted.split(","))
        yield Text(
            f"not counted: {names} (layers that the operation counter does not know); "
            "the energies are too low by their cost",
            style="bold red",
        )
    shown = ("synapse", "neuron", "code")
    yield rich_table((row for row in description["layers"] if row["kind"] in shown), _LAYERS)
    yield Text(
        "input rate: mean absolute value of spikes, share of non-zero values of other input",
        style="dim",
    )


def _purity(description: dict[str, Any]) -> Iterator[RenderableType]:
    purity = description["purity"]
    if purity is None:
        yield Text(_NO_LAYERS)
    elif purity["shares"]["binary"] is None:
        yield Text("No synaptic operation took effect.")
    else:
        yield Text(_purity_text(purity))
        if purity["layers"]:
            yield Text("Layers that multiply, because their input is not spikes:")
            yield rich_table(purity["layers"], _NUMBER_LAYERS)
        else:
            yield Text("No layer needs multiplications: every synaptic operation reads a spike.")


def _purity_text(purity: _Row) -> str:
    """Return the shares of spikes, and whether the cell is spike-driven."""
    shares = purity["shares"]
    signed = f", {_percent(shares['signed'])} % signed" if shares["signed"] else ""
    verdict = "spike-driven" if purity["spike_driven"] else "not spike-driven"
    if purity["spike_driven"] and purity["layers"]:
        verdict = "spike-driven after the first layer"
    return (
        f"Input of the effective synaptic operations: {_percent(shares['binary'])} % binary"
        f"{signed}; {verdict}."
    )


def _others(description: dict[str, Any]) -> Iterator[RenderableType]:
    if description["other_operations"] is None:
        yield Text(_NO_LAYERS)
        return
    rows = [
        {"operation": _OPERATIONS[name], "from": _origin(row), **row}
        for name, row in description["other_operations"].items()
    ]
    yield rich_table(rows, _OTHERS)


def _origin(operation: _Row) -> str | None:
    """Return the layer of the operations, or the number of layers and the one with the most."""
    layers, largest = operation["num_layers"], operation["largest_layer"]
    if layers > 1:
        return f"{layers} layers, {100 * operation['largest_share']:.0f} % in {largest}"
    return None if largest is None else str(largest)


def _epochs(description: dict[str, Any]) -> Iterator[RenderableType]:
    rows = description["epochs"]
    is_tested = any(row["test_accuracy"] is not None for row in rows)
    yield rich_table(rows, [*_EPOCHS, _TEST_ACCURACY] if is_tested else _EPOCHS)
    if is_tested:
        yield Text("test accuracy: it selects nothing and is never ranked", style="dim")


def _listing(values: _Row) -> RenderableType:
    return properties((name, _plain(value)) for name, value in values.items())


def _plain(value: object) -> str:
    if value is None:
        return NONE
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _short(value: float) -> str:
    """Return three digits and a unit prefix: 1234567 -> 1.23 M."""
    thousands = min(3, int(math.log10(value) // 3)) if value >= 1 else 0
    return f"{three_digits(value / 1000**thousands)}{('', ' k', ' M', ' G')[thousands]}"


def _four_decimals(value: float) -> str:
    return f"{value:.4f}"


_NO_LAYERS: Final = "unknown: the table 'layers' of this store has no rows of this cell"
_OPERATIONS: Final = {
    "bias_adds": "bias additions",
    "norm_macs": "normalisation MACs",
    "pool_ops": "pooling operations",
    "residual_adds": "residual additions",
    "gate_muls": "gate multiplications",
    "neuron_updates": "neuron updates",
}
"""Names of the schema's ``ELEMENT_COUNTS``."""

_STEPS: Final[list[Column]] = [
    field("t", "step"),
    field("accuracy\n%", "accuracy", _percent),
    field("firing\nrate %", "firing_rate", _percent),
    field("code %\nnon-zero", "code_rate", _percent),
]
_LAYERS: Final[list[Column]] = [
    field("layer", "layer", is_number=False),
    field("kind", "kind"),
    field("input", "input_class"),
    field("input\nrate %", "input_rate", _percent),
    field("firing\nrate %", "firing_rate", _percent),
    field("effective", "effective_per_image", _short),
    field("dense", "dense_per_image", _short),
    field("runs", "executions_per_image", three_digits),
]
_NUMBER_LAYERS: Final[list[Column]] = [
    field("layer", "layer", is_number=False),
    field("class", "input_classes", ", ".join),
    field("effective\noperations", "operations_per_image", _short),
    field("share %", "share", _percent),
    field("input is", "input", is_number=False),
]
_OTHERS: Final[list[Column]] = [
    field("operation", "operation", is_number=False),
    field("per image", "per_image", _short),
    field("from", "from", is_number=False),
]
_EPOCHS: Final[list[Column]] = [
    field("epoch", "epoch"),
    field("learning\nrate", "learning_rate", "{:.3g}".format),
    field("train\nloss", "train_loss", _four_decimals),
    field("train\naccuracy %", "train_accuracy", _percent),
    field("val\nloss", "val_loss", _four_decimals),
    field("val\naccuracy %", "val_accuracy", _percent),
    field("images/s", "images_per_s", "{:,.0f}".format),
]
_TEST_ACCURACY: Final = field("test\naccuracy %", "test_accuracy", _percent)

_SECTIONS: Final[dict[str, Callable[[dict[str, Any]], Iterator[RenderableType]]]] = {
    "cell": _cell,
    "time steps (prediction and energy: steps 1 to t)": _steps,
    "layers (all steps; synaptic operations per image)": _layers,
    "spike purity (all steps; operations per image)": _purity,
    "other operations (per image)": _others,
    "epochs": _epochs,
}
