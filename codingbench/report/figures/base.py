"""Helpers that all figures share: axes, layout, short numbers and escaped text.

A figure is a plain dictionary for plotly.js; ``plotly.graph_objects.Figure`` accepts it, too.
Numbers are shortened and Plotly's template is left out, so that a page of many figures stays small.
A point's ``customdata`` is the number of its row, by which the page filters.
"""

import html
import math
from collections.abc import Iterable
from typing import Any, Final

from codingbench.report.styles import BACKGROUNDS

Figure = dict[str, Any]

INK: Final = "#20242a"
GRID: Final = "#d9dce1"
FONT: Final = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def plain(text: str) -> str:
    """Escape text for Plotly, which interprets some HTML tags in its texts.

    >>> plain("<b>gac</b>")
    '&lt;b&gt;gac&lt;/b&gt;'
    """
    return html.escape(text, quote=False)


def short(value: float, digits: int = 5) -> float | None:
    """Round to ``digits`` significant digits; return None, JSON's null, for NaN and infinity.

    >>> short(1234.5678), short(math.nan)
    (1234.6, None)
    """
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def shorts(values: Iterable[float]) -> list[float | None]:
    """:func:`short` of each."""
    return [short(value) for value in values]


def axis(title: str, **more: Any) -> dict[str, Any]:
    """Return an axis with this title; ``more`` are further Plotly properties."""
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": GRID,
        "zeroline": False,
        "automargin": True,
        **more,
    }


def layout(height: int, x: dict[str, Any], y: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the layout of a figure on white; the page replaces the colours by its own."""
    return {
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": BACKGROUNDS[0],
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "xaxis": x,
        "yaxis": y,
        **more,
    }


def growing(base: int, line: int, lines: int) -> dict[str, Any]:
    """Return the height of a figure with ``lines`` rows, and how the page computes it."""
    return {"height": base + line * lines, "meta": {"base": base, "line": line}}
