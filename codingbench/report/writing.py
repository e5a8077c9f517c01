"""From a store to the files of a report."""

from pathlib import Path

from codingbench.energy import DEFAULT_PRICING, Pricing
from codingbench.errors import SpecError
from codingbench.report.collecting import collect
from codingbench.report.figure_files import save
from codingbench.report.page import page, plotly_script
from codingbench.store.durable import write_durably
from codingbench.store.folder import Store


def write(
    store: Store,
    output: Path,
    pricing: Pricing = DEFAULT_PRICING,
    dataset: str | None = None,
    title: str = "codingbench report",
    figures: Path | None = None,
) -> list[Path]:
    """Write the page, and the figures if a folder for them is given; returns the files.

    Args:
        store: what is shown.
        output: the page; what is there is replaced.
        pricing: the convention shown first, and that of the figures; one of the user's own is added
            to the others, at the same technology.
        dataset: only this data set; all of them when None.
        title: of the page.
        figures: a folder.

    Raises:
        SpecError: no such data set; the output does not end in .html; a
            package of the extra ``report`` or a browser is missing.
        StoreError: the store cannot be read or has no finished cell.
        OSError: a file cannot be written.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise SpecError(f"the report is a page: expected a name in .html, got {str(output)!r}")
    plotly = plotly_script()
    report = collect(store, pricing, dataset)
    write_durably(output, page(report, title, plotly).encode())
    return [output] if figures is None else [output, *save(report, figures)]
