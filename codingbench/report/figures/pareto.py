"""Accuracy over energy, with the Pareto front."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from codingbench.report.comparison import Comparison
from codingbench.report.figures.base import Figure, axis, layout, plain, short, shorts
from codingbench.report.styles import Style
from codingbench.runtime.formatting import at_least, three_digits
from codingbench.views.rows import interval_text, uncounted_note

MOST_POINTS: Final = 300
"""Maximum number of points by accuracy; points on the front are drawn in addition."""


def front(points: pd.DataFrame) -> pd.DataFrame:
    """Return the Pareto front: points for which no other is as cheap and as accurate, and better in
    one of the two. It is sorted by rising energy; of equal points one is kept.

    Args:
        points: frame with columns ``energy_uj`` and ``accuracy``.
    """
    ordered = points.sort_values(["energy_uj", "accuracy"], ascending=[True, False])
    before = ordered["accuracy"].cummax().shift(fill_value=-1.0)
    return ordered[ordered["accuracy"] > before]


def draw(comparison: Comparison, styles: Mapping[str, Style], convention: str) -> Figure:
    """Draw a point with intervals for each row, a line through the T of a coding, and the front."""
    energies = comparison.energies[convention]
    points = comparison.rows[["encoder", "num_steps", "seeds", "accuracy"]].assign(
        accuracy_low=comparison.rows["accuracy_low"],
        accuracy_high=comparison.rows["accuracy_high"],
        is_lower_bound=comparison.rows["energy_is_lower_bound"],
        energy_uj=energies["energy_uj"],
        energy_low=energies["low"],
        energy_high=energies["high"],
    )
    best = front(points[~comparison.rows["energy_is_lower_bound"].astype(bool)])
    points = points[points.index.isin([*points.index[:MOST_POINTS], *best.index])]
    has_steps = comparison.rows["num_steps"].nunique() > 1
    by_encoder: dict[str, list[Any]] = {}
    for point in points.sort_values(["encoder", "num_steps"]).itertuples():
        by_encoder.setdefault(str(point.encoder), []).append(point)
    traces = [_front_line(best)]
    for encoder, group in by_encoder.items():
        traces.append(_trace(encoder, group, styles[encoder], has_steps))
    kind = "log" if (points["energy_uj"] > 0).all() else "linear"
    x = axis(f"energy, µJ per image ({plain(convention)})", type=kind)
    return {"data": traces, "layout": layout(480, x, axis("accuracy, %"))}


def _front_line(best: pd.DataFrame) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": "front",
        "mode": "lines",
        "x": shorts(best["energy_uj"]),
        "y": shorts(100 * best["accuracy"]),
        "line": {"shape": "hv", "dash": "dot", "width": 1.5, "color": "#888888"},
        "hoverinfo": "skip",
    }


def _trace(encoder: str, points: Sequence[Any], style: Style, has_steps: bool) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": plain(encoder),
        "legendgroup": encoder,
        "mode": "lines+markers+text" if has_steps else "markers",
        "x": [short(point.energy_uj) for point in points],
        "y": [short(100 * point.accuracy) for point in points],
        "error_x": _bars(
            (point.energy_low, point.energy_uj, point.energy_high) for point in points
        ),
        "error_y": _bars(
            (100 * point.accuracy_low, 100 * point.accuracy, 100 * point.accuracy_high)
            for point in points
        ),
        "customdata": [point.Index for point in points],
        "text": [f"T={point.num_steps}" for point in points] if has_steps else None,
        "textposition": "top right",
        "textfont": {"size": 11},
        "hovertext": [_hover(point) for point in points],
        "hoverinfo": "text",
        "line": {"color": style.colour, "width": 1, "dash": style.dash},
        "marker": {
            "color": style.colour,
            "size": 10,
            # hollow: a single run, whose spread over seeds is unknown
            "symbol": [style.symbol + ("-open" if point.seeds == 1 else "") for point in points],
        },
    }


def _bars(ends: Iterable[tuple[float, float, float]]) -> dict[str, Any]:
    """Return error bars for (low, middle, high) of each point; invisible if all are NaN."""
    down, up = zip(
        *((short(middle - low), short(high - middle)) for low, middle, high in ends), strict=True
    )
    return {
        "type": "data",
        "visible": any(part is not None for part in up),
        "symmetric": False,
        "array": up,
        "arrayminus": down,
        "thickness": 1,
        "width": 3,
    }


def _hover(row: Any) -> str:
    energy = f"{at_least(row.energy_uj, row.is_lower_bound)} µJ"
    if short(row.energy_low) is not None:
        energy += f" ({three_digits(row.energy_low)}-{three_digits(row.energy_high)})"
    accuracy = f"{100 * row.accuracy:.2f} % ({interval_text(row.accuracy_low, row.accuracy_high)})"
    return f"{plain(row.encoder)}, T={row.num_steps}, n={row.seeds}<br>{accuracy}<br>{energy}"


def notes(comparison: Comparison, _: str) -> Iterator[str]:
    """Say which rows are not on the front, and which are drawn where there are too many."""
    yield from uncounted_note(comparison.rows)
    if (rows := len(comparison.rows)) > MOST_POINTS:
        yield (
            f"The figure shows the {MOST_POINTS} most accurate of {rows:,} rows and those on the "
            "front; the leaderboard lists all rows."
        )
