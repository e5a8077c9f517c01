"""Curves of the detailed rows: over the steps of a run, and over the epochs of its training."""

from collections.abc import Mapping
from typing import Final

import pandas as pd

from codingbench.report.comparison import Comparison
from codingbench.report.figures.base import Figure, axis, layout, plain, shorts
from codingbench.report.styles import Style
from codingbench.runtime.formatting import three_digits
from codingbench.views.rows import interval_text

TITLES: Final = {"step": "step t", "epoch": "epoch"}
"""What a curve is over -> title of its axis."""

MOST_TICKS: Final = 12
"""Of whole numbers along an axis."""


def accuracy(comparison: Comparison, styles: Mapping[str, Style], _: str) -> Figure:
    """Accuracy of the mean of the first t logits."""
    frame = comparison.curves.assign(y=100 * comparison.curves["accuracy"])
    hover = [
        f"{percent:.2f} % ({interval_text(low, high)})"
        for percent, low, high in zip(frame["y"], frame["low"], frame["high"], strict=True)
    ]
    return _lines(comparison, styles, frame, "step", hover, "accuracy, %")


def firing_rate(comparison: Comparison, styles: Mapping[str, Style], _: str) -> Figure:
    """Firing rate of the network at step t."""
    frame = comparison.curves.assign(y=100 * comparison.curves["firing_rate"])
    return _lines(comparison, styles, frame, "step", _percents(frame), "firing rate at step t, %")


def energy(comparison: Comparison, styles: Mapping[str, Style], convention: str) -> Figure:
    """Energy of an image that is classified after t steps."""
    spent = comparison.curves[convention]
    hover = [f"{three_digits(value)} µJ" for value in spent]
    title = f"energy up to step t, µJ ({plain(convention)})"
    frame = comparison.curves.assign(y=spent)
    figure = _lines(comparison, styles, frame, "step", hover, title)
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def validation_accuracy(comparison: Comparison, styles: Mapping[str, Style], _: str) -> Figure:
    """Validation accuracy after each epoch."""
    frame = comparison.epochs.assign(y=100 * comparison.epochs["val_accuracy"])
    return _lines(comparison, styles, frame, "epoch", _percents(frame), "validation accuracy, %")


def training_loss(comparison: Comparison, styles: Mapping[str, Style], _: str) -> Figure:
    """Mean loss of the training images during each epoch."""
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
    """A line for each row of the comparison that ``frame`` has, its heights in column ``y``.

    Over the steps the last point, where all T are done, is large: those before are prefixes.
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
    # whole numbers: Plotly would put ticks at halves where there are few
    ticks = {"dtick": 1} if frame[over].max() <= MOST_TICKS else {}
    x = axis(TITLES[over], **ticks)
    return {"data": traces, "layout": layout(380, x, axis(title))}
