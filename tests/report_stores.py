"""Stores, reports and figures shared by the tests of the report."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from codingbench.report.collecting import collect
from codingbench.report.comparison import Comparison, ReportData
from codingbench.report.figures.base import Figure
from codingbench.report.figures.catalogue import FIGURES, FigureSpec
from codingbench.store.folder import Store
from tests.conftest import commit

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
REFERENCES = ("field", "cifar100", "fashion_mini")


class Drawn(NamedTuple):
    """A figure with the data it was drawn from."""

    comparison: Comparison
    spec: FigureSpec
    convention: str
    """Empty if the figure does not depend on the convention."""
    figure: Figure


@cache
def reference(name: str) -> ReportData:
    """Return the report of a reference store."""
    return collect(Store(REFERENCE / name))


def store_of(folder: Path, *cells: dict[str, Any]) -> Store:
    """Return a store of cells with these values; other columns are those of ``conftest.commit``."""
    store = Store(folder)
    for number, values in enumerate(cells):
        commit(store, f"{number:016x}", **values)
    return store


def every_figure(report: ReportData) -> Iterator[Drawn]:
    """Yield each figure of each comparison, for each convention if it depends on the convention."""
    for comparison in report.comparisons:
        for spec in FIGURES:
            if spec.rows(comparison):
                for convention in report.pricings if spec.by_convention else [""]:
                    figure = spec.draw(comparison, report.codings, convention)
                    yield Drawn(comparison, spec, convention, figure)
