"""What all figures share: Plotly's dictionaries, axes, and text that stays text.

Figures are plain dictionaries as plotly.js takes them, with short numbers and without Plotly's
template, so that a page of many stays small; ``plotly.graph_objects.Figure`` takes them as they
are. A point's ``customdata`` is the number of its row: by it the page leaves out what its reader
has filtered out.
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
    """Text that Plotly, which reads some HTML in its texts, shows as it is.

    >>> plain("<b>gac</b>")
    '&lt;b&gt;gac&lt;/b&gt;'
    """
    return html.escape(text, quote=False)


def short(value: float, digits: int = 5) -> float | None:
    """The number with so many digits that count; None, which JSON has, for what is no number.

    >>> short(1234.5678), short(math.nan)
    (1234.6, None)
    """
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def shorts(values: Iterable[float]) -> list[float | None]:
    """:func:`short` of each."""
    return [short(value) for value in values]


def axis(title: str, **more: Any) -> dict[str, Any]:
    """One axis."""
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": GRID,
        "zeroline": False,
        "automargin": True,
        **more,
    }


def layout(height: int, x: dict[str, Any], y: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The layout of a figure with these axes, on paper; the page gives it its own colours."""
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
    """The height of a figure with a line for each row, and how the page finds that of fewer."""
    return {"height": base + line * lines, "meta": {"base": base, "line": line}}
