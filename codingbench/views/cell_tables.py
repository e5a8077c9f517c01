"""One cell in full as tables to read."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from codingbench.errors import printable
from codingbench.runtime.formatting import FoldingName, three_digits
from codingbench.schema import COUNTS

_Row = Mapping[str, Any]
_ENERGIES: Final = 6  # columns of energy in one table


class _Column(NamedTuple):
    heading: str
    text: Callable[[Any], str]
    is_name: bool = False
    """Left-justified, and folded where the terminal is narrow."""


def render(description: dict[str, Any]) -> Group:
    """What :func:`codingbench.views.cell.describe` returns, to be printed: numbers rounded, names
    never cut."""
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
    yield _listing({name: value for name, value in cell.items() if name not in COUNTS})


def _steps(description: dict[str, Any]) -> Iterator[RenderableType]:
    conventions: dict[str, str] = description["energy"]["conventions"]
    energies = [
        (field, _Column("µJ\n" + name.replace("-", "-\n"), three_digits))
        for field, name in conventions.items()
    ]
    # What the steps cost by each convention asked for stands beside their accuracy; 80 columns
    # hold those of the package.
    beside, further = dict(energies[:_ENERGIES]), dict(energies[_ENERGIES:])
    yield _table(description["steps"], _STEPS | beside)
    if further:
        yield _table(description["steps"], {"step": _STEPS["step"]} | further)
    chip = description["energy"]["technology"]
    per_byte = f", {chip['byte_pj']} pJ per byte" if "memory" in conventions.values() else ""
    prices = f"{chip['mac_pj']} pJ per MAC, {chip['ac_pj']} pJ per AC{per_byte}"
    yield Text(f"µJ per image at {chip['name']}: {prices}", style="dim")


def _layers(description: dict[str, Any]) -> Iterator[RenderableType]:
    uncounted = description["cell"]["uncounted"]
    if uncounted:
        names = ", ".join(name.strip() for name in uncounted.split(","))
        yield Text(
            f"not counted: {names} (layers the counter does not know); "
            "energies are too low by them",
            style="bold red",
        )
    shown = ("synapse", "neuron", "code")
    yield _table([row for row in description["layers"] if row["kind"] in shown], _LAYERS)
    yield Text("input rate: mean |value| of spikes, of real input the share not 0", style="dim")


def _purity(description: dict[str, Any]) -> Iterator[RenderableType]:
    purity = description["purity"]
    if purity is None:
        yield Text(_NO_LAYERS)
    elif purity["shares"]["binary"] is None:
        yield Text("no effective synaptic operation")
    else:
        yield Text(_purity_text(purity))
        if purity["layers"]:
            yield Text("Layers that multiply numbers:")
            yield _table(purity["layers"], _NUMBER_LAYERS)
        else:
            yield Text("No layer multiplies numbers: every synaptic operation reads a spike.")


def _purity_text(purity: _Row) -> str:
    """The shares of spikes, and whether the cell is spike-driven."""
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
        {"operation": _OPERATIONS[name], "from": _source(row), **row}
        for name, row in description["other_operations"].items()
    ]
    yield _table(rows, _OTHERS)


def _source(operation: _Row) -> str | None:
    """Where operations come from: the layer, or how many and the one with the most."""
    layers, largest = operation["num_layers"], operation["largest_layer"]
    if layers > 1:
        return f"{layers} layers, {100 * operation['largest_share']:.0f} % in {largest}"
    return None if largest is None else str(largest)


def _epochs(description: dict[str, Any]) -> Iterator[RenderableType]:
    yield _table(description["epochs"], _EPOCHS)


def _listing(values: _Row) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(Text(name), Text(_plain(value)))
    return table


def _plain(value: object) -> str:
    if value is None:
        return "—"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[_Row], columns: Mapping[str, _Column]) -> Table:
    """The columns, in order; a value that does not exist is a dash."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for column in columns.values():
        table.add_column(
            Text(column.heading),
            justify="left" if column.is_name else "right",
            no_wrap=not column.is_name,
            overflow="fold",
        )
    for row in rows:
        cells = ((row[name], column.text) for name, column in columns.items())
        texts = ("—" if value is None else text(value) for value, text in cells)
        table.add_row(*map(FoldingName, texts))
    return table


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _short(value: float) -> str:
    """Three digits and a unit prefix: 1234567 -> 1.23 M."""
    thousands = min(3, int(math.log10(value) // 3)) if value >= 1 else 0
    return f"{three_digits(value / 1000**thousands)}{('', ' k', ' M', ' G')[thousands]}"


_NO_LAYERS: Final = "unknown: the store has no rows of this cell in its table layers"
_OPERATIONS: Final = {
    "bias_adds": "bias additions",
    "norm_macs": "normalisation MACs",
    "pool_ops": "pooling operations",
    "residual_adds": "residual additions",
    "gate_muls": "gate multiplications",
    "neuron_updates": "neuron updates",
}
"""Names of the schema's ``ELEMENT_COUNTS``."""

_STEPS: Final = {
    "step": _Column("t", str),
    "accuracy": _Column("accuracy\n%", _percent),
    "firing_rate": _Column("firing\nrate %", _percent),
    "code_rate": _Column("code %\nnon-zero", _percent),
}
_LAYERS: Final = {
    "layer": _Column("layer", str, is_name=True),
    "kind": _Column("kind", str),
    "input_class": _Column("input", str),
    "input_rate": _Column("input\nrate %", _percent),
    "firing_rate": _Column("firing\nrate %", _percent),
    "effective_per_image": _Column("effective", _short),
    "dense_per_image": _Column("dense", _short),
    "executions_per_image": _Column("runs", three_digits),
}
_NUMBER_LAYERS: Final = {
    "layer": _Column("layer", str, is_name=True),
    "input_classes": _Column("class", ", ".join),
    "operations_per_image": _Column("effective\noperations", _short),
    "share": _Column("share %", _percent),
    "input": _Column("input is", str, is_name=True),
}
_OTHERS: Final = {
    "operation": _Column("operation", str, is_name=True),
    "per_image": _Column("per image", _short),
    "from": _Column("from", str, is_name=True),
}
_EPOCHS: Final = {
    "epoch": _Column("epoch", str),
    "learning_rate": _Column("learning\nrate", lambda value: f"{value:.3g}"),
    "train_loss": _Column("train\nloss", lambda value: f"{value:.4f}"),
    "train_accuracy": _Column("train\naccuracy %", _percent),
    "val_loss": _Column("val\nloss", lambda value: f"{value:.4f}"),
    "val_accuracy": _Column("val\naccuracy %", _percent),
    "images_per_s": _Column("images/s", lambda value: f"{value:,.0f}"),
}

_SECTIONS: Final[dict[str, Callable[[dict[str, Any]], Iterator[RenderableType]]]] = {
    "cell": _cell,
    "time steps (prediction and energy: steps 1 to t)": _steps,
    "layers (all steps; synaptic operations per image)": _layers,
    "spike purity (all steps; operations per image)": _purity,
    "other operations (per image)": _others,
    "epochs": _epochs,
}
