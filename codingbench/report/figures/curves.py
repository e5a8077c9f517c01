"""Curves of the detailed rows, over time steps and over training epochs."""

from collections.abc import Iterator, Mapping
from typing import Final

import pandas as pd

from codingbench.report.comparison import Comparison
from codingbench.report.figures.base import Figure, axis, layout, plain, shorts
from codingbench.report.styles import Style
from codingbench.runtime.formatting import at_least
from codingbench.views.rows import interval_text, uncounted_note

TITLES: Final = {"step": "step t", "epoch": "epoch"}
"""Column of the x-axis -> title of the axis."""

MOST_TICKS: Final = 12
"""Largest axis range that gets a tick at every whole number."""


def accuracy(comparison: Comparison, styles: Mapping[str, Style], _: str) -> Figure:
    """Draw the accuracy of the mean of the first t logits."""
    frame = comparison.curves.assign(y=100 * comparison.curves["accuracy"])
    hover = [
        f"{percent:.2f} % ({interval_text(low, high)})"
        for percent, low, high in zip(frame["y"], frame["low"], frame["high"], strict=True)
    ]
    return _lines(comparison, styles, frame, "step", hover, "accuracy, %")


def firing_rate(comparison: Comparison, styles: Mapping[str, Style], _: str) -> Figure:
    """Draw the firing rate of the network at step t."""
    frame = comparison.curves.assign(y=100 * comparison.curves["firing_rate"])
    return _lines(comparison, styles, frame, "step", _percents(frame), "firing rate at step t, %")


def energy(comparison: Comparison, styles: Mapping[str, Style], convention: str) -> Figure:
    """Draw the energy of an image that is classified after t steps."""
    spent = comparison.curves[convention]
    is_bound = comparison.curves["row"].map(comparison.rows["energy_is_lower_bound"])
    pairs = zip(spent, is_bound, strict=True)
    hover = [f"{at_least(value, is_lower)} µJ" for value, is_lower in pairs]
    title = f"energy up to step t, µJ ({plain(convention)})"
    frame = comparison.curves.assign(y=spent)
    figure = _lines(comparison, styles, frame, "step", hover, title)
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def energy_notes(comparison: Comparison, _: str) -> Iterator[str]:
    """Yield a note about the energies that are lower bounds."""
    return uncounted_note(comparison.rows)


def validation_accuracy(comparison: Comparison, styles: Mapping[str, Style], _: str) -> Figure:
    """Draw the validation accuracy after each epoch."""
    frame = comparison.epochs.assign(y=100 * comparison.epochs["val_accuracy"])
    return _lines(comparison, styles, frame, "epoch", _percents(frame), "validation accuracy, %")


def training_loss(comparison: Comparison, styles: Mapping[str, Style], _: str) -> Figure:
    """Draw the mean loss of the training images during each epoch."""
    loss = comparison.epochs["train_loss"]
    hover = [f"loss {value:.4g}" for value in loss]
    frame = comparison.epochs.assign(y=loss)
    return _lines(comparison, styles, frame, "epoch", hover, "training loss")


def _percents(frame: pd.DataFrame) -> list[str]:
    return [f"{value:.2f} %" for value in frame["y"]]


def _lines(
    comparison: Comparison,
    styles: Mapping[str, Style],
    frame: pd.DataFrame,
    over: str,
    hover: list[str],
    title: str,
) -> Figure:
    """Draw a line for each row in ``frame``, whose column ``y`` holds the heights.

    Along the time steps the last point is large: it is the T-step model, the others are prefixes.
    """
    traces = []
    by_row = dict(list(frame.assign(hover=hover).groupby("row")))
    for row in filter(by_row.__contains__, comparison.detailed):
        points = by_row[row]
        small = [5] * (len(points) - 1)
        name, encoder = plain(comparison.labels[row]), str(comparison.rows.at[row, "encoder"])
        style = styles[encoder]
        traces.append(
            {
                "type": "scatter",
                "name": name,
                "legendgroup": encoder,
                "mode": "lines+markers",
                "x": points[over].tolist(),
                "y": shorts(points["y"]),
                "customdata": [row] * len(points),
                "hovertext": [
                    f"{name}<br>{over} {at}: {text}"
                    for at, text in zip(points[over], points["hover"], strict=True)
                ],
                "hoverinfo": "text",
                "line": {"color": style.colour, "dash": style.dash, "width": 2},
                "marker": {
                    "color": style.colour,
                    "symbol": style.symbol,
                    "opacity": 1,
                    "size": [*small, 10 if over == "step" else 5],
                },
            }
        )
    # without dtick, Plotly puts ticks at halves on short axes
    ticks = {"dtick": 1} if frame[over].max() <= MOST_TICKS else {}
    x = axis(TITLES[over], **ticks)
    return {"data": traces, "layout": layout(380, x, axis(title))}
