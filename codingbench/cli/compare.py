"""``codingbench compare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codingbench.cli import options
from codingbench.cli.output import write
from codingbench.cli.selecting import ResultsFolders, opened, selecting
from codingbench.energy import CONVENTIONS, DEFAULT_TECHNOLOGY, Pricing

if TYPE_CHECKING:
    from codingbench.analysis.selection import Selection


@selecting("encoders")
def compare(
    selection: "Selection",
    encoders: Annotated[
        list[str] | None,
        typer.Argument(help="At least two codings, named as for codingbench run."),
    ] = None,
    between: Annotated[
        str,
        typer.Option(
            help="Compare encoders, backbones, neurons, recipes or T: those of --backbones, "
            "--neurons, --recipe or --T, or all; of each coding named, or of all."
        ),
    ] = "encoders",
    against_T: Annotated[
        str | None,
        typer.Option(
            "--against-T",
            metavar="INTS",
            help="Compare each coding at --T with itself at these numbers of time steps.",
        ),
    ] = None,
    results: ResultsFolders = [Path("results")],  # noqa: B006  # typer copies it
    energy: Annotated[
        str,
        typer.Option(help=f"Energy convention: {', '.join(CONVENTIONS)} or file.py:variable."),
    ] = "exact",
    technology: options.Technology = DEFAULT_TECHNOLOGY,
    format: Annotated[
        str, typer.Option(help="Output format: table, json, csv, markdown or latex.")
    ] = "table",
) -> None:
    """Compare codings pair by pair over the same seeds and test images, with significance tests.

    Backbones, recipes and numbers of time steps are compared in the same way, where the two
    sides differ in nothing else.

    Example: codingbench compare gac direct --T 2,4,6
    """
    from codingbench.analysis.sides import comparison_of
    from codingbench.views.comparison import present

    between, against = comparison_of(between, selection, against_T)
    write(
        present(
            opened(results),
            encoders or [],
            selection,
            form=format,
            pricing=Pricing.of(energy, technology),
            between=between,
            against=against,
        )
    )
