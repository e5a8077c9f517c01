"""One cell in full: what ``codingbench show`` prints."""

import difflib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from codingbench.energy import energy_uj, get_convention
from codingbench.errors import SpecError, unknown
from codingbench.formatting import FoldingName, records, three_digits
from codingbench.schema import COUNTS, PAPER_COUNTS, VALUE_CLASSES
from codingbench.store import Store

_MIN_PREFIX: Final = 4
_Columns = dict[str, tuple[str, Callable[[Any], str]]]
"""Field -> heading and how to write its values."""

_COUNTS: Final = (*COUNTS, *PAPER_COUNTS)
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
    store: Store, cell: str, energy: Sequence[str] = ("exact", "paper"), form: str = "table"
) -> str | Group:
    """A cell as JSON text, or for the format ``table`` to be printed.

    Args:
        store: where the cell is.
        cell: its key, or the beginning of it.
        energy: names of the conventions to price the steps by.
        form: ``table`` or ``json``.

    Raises:
        SpecError: no such format or convention; no such cell, or several.
        StoreError: the store cannot be read.
    """
    if form not in FORMATS:
        raise SpecError(unknown("format", form, FORMATS))
    return FORMATS[form](describe(store, find(store, cell), energy))


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


def describe(store: Store, key: str, energy: Sequence[str] = ("exact", "paper")) -> dict[str, Any]:
    """All that the store knows of the cell ``key``, as values that JSON can hold.

    Returns:
        ``cell`` (the row of the table ``cells``), ``steps``, ``layers`` and ``epochs``; of a failed
        cell only ``failure``. Energies are in microjoules per image, operations per image.

    Raises:
        SpecError: no such convention.
        StoreError: the store cannot be read.
    """
    for name in energy:
        get_convention(name)
    if key in store.failed():
        failures = store.failures()
        return {"failure": records(failures[failures["key"] == key])[0]}
    steps = store.read("steps", [key]).sort_values("step")
    epochs = store.read("epochs", [key]).sort_values("epoch")
    return {
        "cell": records(store.read("cells", [key]))[0],
        "steps": records(_steps(steps, energy)),
        "layers": records(_layers(store.read("layers", [key]))),
        "epochs": records(epochs[_EPOCH_COLUMNS]),
    }


def _steps(steps: pd.DataFrame, energy: Sequence[str]) -> pd.DataFrame:
    """Per step what the step did, and the energy of an image classified after it."""
    so_far = steps[[*_COUNTS]].cumsum().assign(images=steps["images"])
    energies = {f"energy_{name}_uj": energy_uj(so_far, name) for name in energy}
    code_rate = steps["code_nonzero"] / steps["code_values"]
    return steps[["step", "is_prefix", "accuracy", "firing_rate"]].assign(
        code_rate=code_rate, **energies
    )


def _layers(layers: pd.DataFrame) -> pd.DataFrame:
    """Per layer, in the order of execution, totals over all steps per image."""
    classes = ["effective", "dense"]
    sums = layers.assign(
        input_total=layers["input_rate"] * layers["input_values"],
        neuron_images=layers["neurons"] * layers["images"],
        dearest=layers["input_class"].map({name: i for i, name in enumerate(VALUE_CLASSES)}),
        **{how: layers[[f"{how}_{c}" for c in VALUE_CLASSES]].sum(axis=1) for how in classes},
    )
    grouped = sums.groupby("layer", sort=False)
    table = grouped.agg(
        position=("position", "min"),
        kind=("kind", "first"),
        dearest=("dearest", "max"),
        images=("images", "max"),
        executions=("executions", "sum"),
        input_total=("input_total", "sum"),
        input_values=("input_values", "sum"),
        effective=("effective", "sum"),
        dense=("dense", "sum"),
        spikes=("spikes", "sum"),
        neuron_images=("neuron_images", "sum"),
    ).sort_values("position")
    per_image = {
        f"{name}_per_image": table[name] / table["images"]
        for name in ("effective", "dense", "executions")
    }
    return table.assign(
        input_class=table["dearest"].map(dict(enumerate(VALUE_CLASSES))),
        input_rate=table["input_total"] / table["input_values"],
        firing_rate=table["spikes"] / table["neuron_images"],
        **per_image,
    ).reset_index()[["layer", "kind", "input_class", "input_rate", "firing_rate", *per_image]]


def render(description: dict[str, Any]) -> Group:
    """What :func:`describe` returns, to be printed: numbers rounded, names never cut."""
    if "failure" in description:
        failure = dict(description["failure"])
        traceback = Text(failure.pop("traceback") or "")
        return Group(Text("failed cell", style="bold"), _listing(failure), Text(), traceback)
    cell = {name: value for name, value in description["cell"].items() if name not in _COUNTS}
    # What the steps cost by each convention asked for stands beside their accuracy.
    energies = [name for name in next(iter(description["steps"]), {}) if name.endswith("_uj")]
    steps = _STEPS | {name: (f"µJ/image\n({name[7:-3]})", three_digits) for name in energies}
    sections = {
        "cell": _listing(cell),
        "time steps (prediction and energy: steps 1 to t)": _table(description["steps"], steps),
        "layers (all steps; operations per image)": _table(description["layers"], _LAYERS),
        "epochs": _table(description["epochs"], _EPOCHS),
    }
    parts = ((Text(title, style="bold"), body, Text()) for title, body in sections.items())
    return Group(*(part for section in parts for part in section))


def _listing(values: dict[str, Any]) -> Table:
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


def _table(rows: list[dict[str, Any]], columns: _Columns) -> Table:
    """The columns, in order; the first may fold, a value that does not exist is a dash."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading, _ in columns.values():
        is_name = heading == "layer"
        table.add_column(
            Text(heading),
            justify="left" if is_name else "right",
            no_wrap=not is_name,
            overflow="fold",
        )
    for row in rows:
        cells = ((row[name], form) for name, (_, form) in columns.items())
        texts = ("—" if value is None else form(value) for value, form in cells)
        table.add_row(*map(FoldingName, texts))
    return table


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _short(value: float) -> str:
    """Three digits and a unit prefix: 1234567 -> 1.23 M."""
    thousands = min(3, int(math.log10(value) // 3)) if value >= 1 else 0
    return f"{three_digits(value / 1000**thousands)}{('', ' k', ' M', ' G')[thousands]}"


_STEPS: Final[_Columns] = {
    "step": ("t", str),
    "accuracy": ("accuracy %", _percent),
    "firing_rate": ("firing\nrate %", _percent),
    "code_rate": ("code\nnon-zero %", _percent),
}
_LAYERS: Final[_Columns] = {
    "layer": ("layer", str),
    "kind": ("kind", str),
    "input_class": ("input", str),
    "input_rate": ("input\nrate %", _percent),
    "firing_rate": ("firing\nrate %", _percent),
    "effective_per_image": ("effective\noperations", _short),
    "dense_per_image": ("dense\noperations", _short),
    "executions_per_image": ("runs", three_digits),
}
_EPOCHS: Final[_Columns] = {
    "epoch": ("epoch", str),
    "learning_rate": ("learning\nrate", lambda value: f"{value:.3g}"),
    "train_loss": ("train\nloss", lambda value: f"{value:.4f}"),
    "train_accuracy": ("train\naccuracy %", _percent),
    "val_loss": ("val\nloss", lambda value: f"{value:.4f}"),
    "val_accuracy": ("val\naccuracy %", _percent),
    "images_per_s": ("images/s", lambda value: f"{value:,.0f}"),
}

FORMATS: Final[dict[str, Callable[[dict[str, Any]], str | Group]]] = {
    "table": render,
    "json": lambda description: json.dumps(description, indent=2, allow_nan=False) + "\n",
}
"""What ``--format`` takes."""
