"""``codingbench report``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codingbench.cli import options
from codingbench.cli.selecting import ResultsFolders, opened, selecting
from codingbench.energy import CONVENTIONS, DEFAULT_TECHNOLOGY, Pricing
from codingbench.runtime.paths import user_path

if TYPE_CHECKING:
    from codingbench.analysis.selection import Selection


@selecting()
def report(
    selection: "Selection",
    results: ResultsFolders = [Path("results")],  # noqa: B006  # typer copies it
    output: Annotated[
        Path,
        typer.Option(
            help="File to write, replacing an older one.", parser=user_path, metavar="PATH"
        ),
    ] = Path("report.html"),
    figures: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the figures as SVG and PNG; drawing needs Chrome or Chromium.",
            parser=user_path,
            metavar="PATH",
        ),
    ] = None,
    energy: Annotated[
        str,
        typer.Option(
            help=f"Energy convention shown first: {', '.join(CONVENTIONS)}, or file.py:variable."
        ),
    ] = "exact",
    technology: options.Technology = DEFAULT_TECHNOLOGY,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "codingbench report",
) -> None:
    """Write the results as one HTML page that works offline, with tables and figures.

    Example: codingbench report --results results --figures figures
    """
    from codingbench.report.writing import write

    pricing = Pricing.of(energy, technology)
    for path in write(opened(results), output, pricing, selection, title, figures):
        typer.echo(f"{path}: {path.stat().st_size:,} bytes")
