"""The encoder's bill: the energy of each row, split into stem, coding and backbone."""

from collections.abc import Iterator, Mapping
from typing import Final

from codingbench.report.comparison import Comparison
from codingbench.report.figures.base import Figure, axis, growing, layout, plain, shorts
from codingbench.report.styles import Style
from codingbench.views.energies import part_text, sentences, total_text
from codingbench.views.rows import uncounted_note

_PARTS: Final = {"stem": ("/", 0.75), "coding": ("", 1.0), "backbone": ("", 0.35)}
"""Part -> pattern and opacity of its bars; the colour is that of the coding."""


def draw(comparison: Comparison, styles: Mapping[str, Style], convention: str) -> Figure:
    """Draw a stacked bar for each row: stem, coding and backbone."""
    bill = comparison.bills[convention]
    labels = [plain(comparison.labels[row]) for row in bill.index]
    colours = [styles[encoder].colour for encoder in bill["encoder"]]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part,
            "x": shorts(bill[f"{part}_uj"]),
            "y": labels,
            "customdata": bill.index.tolist(),
            "hovertext": [
                f"{label}<br>{part}: {part_text(row, part)} µJ of {total_text(row)}"
                for label, row in zip(labels, bill.itertuples(), strict=True)
            ],
            "hoverinfo": "text",
            "opacity": opacity,
            "marker": {"color": colours, "pattern": {"shape": pattern, "solidity": 0.35}},
        }
        for part, (pattern, opacity) in _PARTS.items()
    ]
    x = axis(f"energy, µJ per image ({plain(convention)})", rangemode="tozero")
    y = axis("", autorange="reversed", type="category", showgrid=False, ticks="outside")
    figure = layout(0, x, y, barmode="stack", bargap=0.3) | growing(130, 26, len(labels))
    figure["legend"] = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"}
    return {"data": traces, "layout": figure}


def notes(comparison: Comparison, convention: str) -> Iterator[str]:
    """Yield sentences that compare each coding with direct coding: points gained, energy added."""
    yield from sentences(comparison.bills[convention])
    yield from uncounted_note(comparison.bills[convention])
