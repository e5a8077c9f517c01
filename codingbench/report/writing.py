"""Write the files of a report."""

from pathlib import Path

from codingbench.analysis.selection import EVERYTHING, Selection
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
    selection: Selection = EVERYTHING,
    title: str = "codingbench report",
    figures: Path | None = None,
) -> list[Path]:
    """Write the page and, if ``figures`` is given, the figures; return the paths of all files.

    Args:
        store: the results.
        output: path of the page, ending in .html; an existing file is replaced.
        pricing: pricing of the figures, and the one the page shows first; a user-defined convention
            is added to the shipped ones, with the same technology.
        selection: the cells that the report is about.
        title: title of the page.
        figures: folder for the figures as SVG and PNG.

    Raises:
        SpecError: no cell is selected; ``output`` does not end in .html or has no folder; a package
            of the extra ``report`` or a browser is missing.
        StoreError: the store cannot be read or has no finished cell.
        OSError: a file cannot be written.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise SpecError(f"the report is HTML: output must end in .html, got {str(output)!r}")
    if not output.parent.is_dir():
        raise SpecError(f"cannot write {str(output)!r}: its folder does not exist")
    plotly = plotly_script()
    report = collect(store, pricing, selection)
    write_durably(output, page(report, title, plotly).encode())
    return [output] if figures is None else [output, *save(report, figures)]
