"""Firing rates of every layer at every step, as a heat map with one line for each row."""

from collections.abc import Mapping
from typing import Any, Final

from codingbench.report.comparison import Comparison
from codingbench.report.figures.base import Figure, axis, growing, layout, plain, short
from codingbench.report.styles import Style

CODE: Final = "encoder.code"
"""The encoder's output, which the table lists as a layer although it has no neurons."""


def draw(comparison: Comparison, _styles: Mapping[str, Style], _: str) -> Figure:
    """Draw the map. Its columns are the layers in execution order, each with its steps and a gap.

    The colour scale ends at the highest rate of a layer of neurons. The "rate" of a real-valued
    code is its share of non-zero values, so high that it would leave no contrast for the neurons.
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
    top = of_neurons.max() if of_neurons.any() else 1.0  # if no neuron spikes, any scale will do
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
    """Return (layer, step) for each column; ("", 0) is a gap.

    A layer is placed at its last position in any row, so that it follows every layer that runs
    before it in some row. Positions differ because some codings have more layers than others.
    """
    by_layer = comparison.rates.groupby("layer")
    steps, places = by_layer["step"].max(), by_layer["position"].max()
    columns: list[tuple[str, int]] = []
    for layer in places.sort_values(kind="stable").index:
        columns += [("", 0)] if columns else []
        columns += [(layer, step) for step in range(1, steps[layer] + 1)]
    return columns


def _ticks(columns: list[tuple[str, int]]) -> dict[str, Any]:
    """Return a tick at the middle of each layer."""
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
