"""``codingbench show``."""

from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli import options
from codingbench.cli.output import write
from codingbench.energy import CONVENTIONS, DEFAULT_TECHNOLOGY, pricings


def show(
    cell: Annotated[str, typer.Argument(help="Key of a cell, or its first 4 or more characters.")],
    results: options.ResultsFolder = Path("results"),
    energy: Annotated[
        str,
        typer.Option(
            help=f"Energy conventions, comma-separated: {', '.join(CONVENTIONS)}, "
            "file.py:variable, or all."
        ),
    ] = "exact,paper",
    technology: options.Technology = DEFAULT_TECHNOLOGY,
    format: Annotated[str, typer.Option(help="Output format: table or json.")] = "table",
) -> None:
    """Show everything about one cell: steps, layers, spike purity and epochs, or why it failed.

    Example: codingbench show 3f9a12c4 --format json
    """
    from codingbench.store.folder import Store
    from codingbench.views.cell import present

    priced = pricings([name.strip() for name in energy.split(",")], technology)
    write(present(Store(results), cell, priced, format))
