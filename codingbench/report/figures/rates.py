"""Firing rates of every layer at every step: one line of the map for each row."""

from collections.abc import Mapping
from typing import Any, Final

from codingbench.report.comparison import Comparison
from codingbench.report.figures.base import Figure, axis, growing, layout, plain, short
from codingbench.report.styles import Style

CODE: Final = "encoder.code"
"""What an encoder emits: a layer of the table, but no neuron."""


def draw(comparison: Comparison, _looks: Mapping[str, Style], _: str) -> Figure:
    """Columns are the layers in the order of their execution, each with its steps, apart by gaps.

    The colours end at the highest rate of a spiking neuron: a real-valued code, whose "rate" is the
    share of its values that are not zero, would leave them none.
    """
    rates, rows = comparison.rates, comparison.detailed
    columns = _columns(comparison)
    place = {column: number for number, column in enumerate(columns)}
    z: list[list[float | None]] = [[None] * len(columns) for _ in rows]
    for rate in rates.to_dict("records"):
        at = place[(rate["layer"], rate["step"])]
        z[rows.index(rate["row"])][at] = short(100 * rate["firing_rate"], 4)
    labels = [plain(comparison.labels[row]) for row in rows]
    of_neurons = rates.loc[rates["layer"].ne(CODE), "firing_rate"]
    top = of_neurons.max() if of_neurons.any() else 1.0  # where none spikes there is no scale
    trace = {
        "type": "heatmap",
        "x": list(range(len(columns))),
        "y": labels,
        "z": z,
        "customdata": rows,
        "zmin": 0,
        "zmax": short(100 * top),
        "colorscale": "Cividis",
        "colorbar": {"title": {"text": "%"}, "thickness": 12, "outlinewidth": 0},
        "xgap": 1,
        "ygap": 1,
        "hoverinfo": "text",
        "hovertext": [
            [_hover(label, column, value) for column, value in zip(columns, line, strict=True)]
            for label, line in zip(labels, z, strict=True)
        ],
        "meta": [f"{layer} t={step}" if layer else "" for layer, step in columns],
    }
    return {
        "data": [trace],
        "layout": layout(
            0,
            axis("", showgrid=False, tickangle=-30, **_ticks(columns)),
            axis("", showgrid=False, autorange="reversed", type="category"),
        )
        | growing(150, 24, len(rows)),
    }


def _columns(comparison: Comparison) -> list[tuple[str, int]]:
    """Each layer with its steps; ("", 0) is a gap.

    A layer's place is the last that it has in any row, so that it comes after all that is run
    before it there: codings with fewer layers of their own have the following ones earlier.
    """
    by_layer = comparison.rates.groupby("layer")
    steps, places = by_layer["step"].max(), by_layer["position"].max()
    columns: list[tuple[str, int]] = []
    for layer in places.sort_values(kind="stable").index:
        columns += [("", 0)] if columns else []
        columns += [(layer, step) for step in range(1, steps[layer] + 1)]
    return columns


def _ticks(columns: list[tuple[str, int]]) -> dict[str, Any]:
    """A tick in the middle of each layer."""
    places: dict[str, list[int]] = {}
    for place, (layer, _) in enumerate(columns):
        if layer:
            places.setdefault(layer, []).append(place)
    return {
        "tickvals": [sum(at) / len(at) for at in places.values()],
        "ticktext": [plain(layer.removeprefix("backbone.")) for layer in places],
    }


def _hover(label: str, column: tuple[str, int], value: float | None) -> str:
    layer, step = column
    return "" if value is None else f"{label}<br>{plain(layer)}, t={step}: {value} %"
