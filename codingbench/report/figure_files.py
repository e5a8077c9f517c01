"""Save the figures as SVG and PNG files. Plotly draws them in an installed Chrome or Chromium.

Requires plotly and kaleido (the extra ``report``). Nothing is loaded from the network.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

from codingbench.errors import CodingbenchError, SpecError
from codingbench.registry import network_name
from codingbench.report.comparison import Comparison, ReportData
from codingbench.report.figures.base import Figure
from codingbench.report.figures.catalogue import FIGURES

SCALES: Final = {"svg": 1, "png": 2}
"""File format -> pixels of the file per unit of the figure."""

WIDTH: Final = 900

_LEGEND_LINE: Final = 21  # height of a legend entry in Plotly, in units of the figure


def save(report: ReportData, folder: Path) -> list[Path]:
    """Write each figure of each comparison in every format of ``SCALES``, replacing older files.

    A file is named after its comparison and figure: ``cifar100-csnn-quick-pareto.svg``.

    Raises:
        SpecError: kaleido, Chrome or Chromium is not installed.
        CodingbenchError: the browser could not draw a figure.
        OSError: the folder cannot be created or written.
    """
    try:
        import kaleido
        from kaleido.errors import BrowserClosedError, BrowserFailedError, ChromeNotFoundError
    except ImportError as error:
        raise SpecError("--figures needs kaleido: pip install 'codingbench[report]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    requests = [
        request
        for stem, comparison in _named(report.comparisons)
        for request in _requests(folder / stem, comparison, report)
    ]
    try:
        # kaleido would load MathJax from the network by default; no figure needs it
        failed = kaleido.write_fig_from_object_sync(requests, kopts={"mathjax": False})
    except ChromeNotFoundError as error:
        raise SpecError(
            "--figures needs Chrome or Chromium: install one, or set BROWSER_PATH to its path"
        ) from error
    except (BrowserFailedError, BrowserClosedError) as error:
        raise CodingbenchError(
            "the browser that draws the figures failed to start or stopped; "
            "set BROWSER_PATH to use another one"
        ) from error
    if failed:
        raise CodingbenchError(f"{len(failed)} figures could not be drawn: {failed[0]}")
    return [request["path"] for request in requests]


def _named(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, Comparison]]:
    """Yield each comparison with a unique prefix for its files, numbered where names repeat."""
    taken: set[str] = set()
    for comparison in comparisons:
        first = comparison.rows.iloc[0]
        network = network_name(first["backbone"], first["neuron"])
        name = "-".join(map(str, (first["dataset"], network, first["recipe"])))
        stem = re.sub(r"[^0-9A-Za-z_=-]+", "_", name)[:100]
        # a recipe may itself be named quick-2
        stems = chain([stem], (f"{stem}-{number}" for number in count(2)))
        free = next(stem for stem in stems if stem.lower() not in taken)
        taken.add(free.lower())  # some file systems ignore case
        yield free, comparison


def _requests(stem: Path, comparison: Comparison, report: ReportData) -> Iterator[dict[str, Any]]:
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
    """Return the figure with a size and a legend; in the page both come from elsewhere."""
    layout = figure["layout"]
    entries = len(figure["data"]) if "legend" not in layout else 0
    size = {"width": WIDTH, "height": max(layout["height"], 80 + _LEGEND_LINE * entries)}
    legend = {"tracegroupgap": 0} | layout.get("legend", {})
    shown = {"showlegend": len(figure["data"]) > 1, "legend": legend}
    return {**figure, "layout": layout | size | shown}
