"""The figures as SVG and PNG files, drawn by Plotly in a Chrome or Chromium that is installed.

Needs plotly and kaleido, the extra ``report``. Nothing is loaded from the network.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

from codingbench.errors import CodingbenchError, SpecError
from codingbench.report.comparison import Comparison, ReportData
from codingbench.report.figures.base import Figure
from codingbench.report.figures.catalogue import FIGURES

SCALES: Final = {"svg": 1, "png": 2}
"""Format -> pixels of the file to a unit of the figure."""

WIDTH: Final = 900

_LEGEND_LINE: Final = 21  # units of height that Plotly gives an entry of a legend


def save(report: ReportData, folder: Path) -> list[Path]:
    """Write each figure of each comparison in every format of ``SCALES``; replaces older ones.

    A file is named after its comparison and figure: ``cifar100-csnn-quick-pareto.svg``.

    Raises:
        SpecError: kaleido is not installed, or there is no Chrome or Chromium.
        CodingbenchError: the browser could not draw a figure.
        OSError: the folder cannot be made or written.
    """
    try:
        import kaleido
        from kaleido.errors import BrowserClosedError, BrowserFailedError, ChromeNotFoundError
    except ImportError as error:
        raise SpecError("--figures needs kaleido: pip install 'codingbench[report]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    orders = [
        order
        for stem, comparison in _named(report.comparisons)
        for order in _orders(folder / stem, comparison, report)
    ]
    try:
        # without an answer it would load MathJax, which no figure needs
        failed = kaleido.write_fig_from_object_sync(orders, kopts={"mathjax": False})
    except ChromeNotFoundError as error:
        raise SpecError(
            "--figures needs Chrome or Chromium: install one, or name it in BROWSER_PATH"
        ) from error
    except (BrowserFailedError, BrowserClosedError) as error:
        raise CodingbenchError(
            "the browser that draws figures did not start or broke off; BROWSER_PATH names another"
        ) from error
    if failed:
        raise CodingbenchError(f"{len(failed)} figures could not be drawn: {failed[0]}")
    return [order["path"] for order in orders]


def _named(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, Comparison]]:
    """Each with what its files begin with; a number tells apart what is named alike."""
    taken: set[str] = set()
    for comparison in comparisons:
        first = comparison.rows.iloc[0]
        name = "-".join(str(first[column]) for column in ("dataset", "backbone", "recipe"))
        stem = re.sub(r"[^0-9A-Za-z_=-]+", "_", name)[:100]
        # another recipe may itself be called quick-2
        stems = chain([stem], (f"{stem}-{number}" for number in count(2)))
        free = next(stem for stem in stems if stem.lower() not in taken)
        taken.add(free.lower())  # some file systems take upper and lower case for one
        yield free, comparison


def _orders(stem: Path, comparison: Comparison, report: ReportData) -> Iterator[dict[str, Any]]:
    for spec in FIGURES:
        if spec.rows(comparison):
            figure = on_paper(spec.draw(comparison, report.codings, report.convention))
            for form, scale in SCALES.items():
                yield {
                    "fig": figure,
                    "path": stem.with_name(f"{stem.name}-{spec.name}.{form}"),
                    "opts": {"format": form, "scale": scale},
                }


def on_paper(figure: Figure) -> Figure:
    """The figure with a size, and with a legend, which in the page is outside the figures."""
    layout = figure["layout"]
    entries = len(figure["data"]) if "legend" not in layout else 0
    size = {"width": WIDTH, "height": max(layout["height"], 80 + _LEGEND_LINE * entries)}
    legend = {"tracegroupgap": 0} | layout.get("legend", {})
    shown = {"showlegend": len(figure["data"]) > 1, "legend": legend}
    return {**figure, "layout": layout | size | shown}
