"""``codingbench show``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codingbench.cli import options
from codingbench.cli.output import write
from codingbench.cli.selecting import CELLS, ResultsFolders, opened, selecting
from codingbench.energy import CONVENTIONS, DEFAULT_TECHNOLOGY, pricings

if TYPE_CHECKING:
    from codingbench.analysis.selection import Selection


@selecting("encoders", "seeds")
def show(
    selection: "Selection",
    cell: Annotated[
        str,
        typer.Argument(
            help="Key of a cell, or its first 4 or more characters; or a coding, whose cell the "
            "options select."
        ),
    ],
    seed: Annotated[
        int | None, options.option("--seed", panel=CELLS, help="Only the cell of this seed.")
    ] = None,
    results: ResultsFolders = [Path("results")],  # noqa: B006  # typer copies it
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

    Example: codingbench show direct --seed 0 --T 4
    """
    from dataclasses import replace

    from codingbench.views.cell import present

    priced = pricings([name.strip() for name in energy.split(",")], technology)
    if seed is not None:
        selection = replace(selection, seeds=(seed,))
    write(present(opened(results), cell, priced, format, selection))
