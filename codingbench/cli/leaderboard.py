"""``codingbench leaderboard``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codingbench.cli import options
from codingbench.cli.output import write
from codingbench.cli.selecting import ResultsFolders, opened, selecting
from codingbench.energy import CONVENTIONS, DEFAULT_TECHNOLOGY, Pricing

if TYPE_CHECKING:
    from codingbench.analysis.selection import Selection


@selecting()
def leaderboard(
    selection: "Selection",
    results: ResultsFolders = [Path("results")],  # noqa: B006  # typer copies it
    sort: Annotated[
        str, typer.Option(help="Sort by accuracy, energy, firing-rate, parameters, T or encoder.")
    ] = "accuracy",
    energy: Annotated[
        str,
        typer.Option(
            help=f"Energy convention: {', '.join(CONVENTIONS)}, file.py:variable; "
            "or all: every convention with its ranks."
        ),
    ] = "exact",
    technology: options.Technology = DEFAULT_TECHNOLOGY,
    bill: Annotated[
        bool,
        typer.Option(
            "--bill",
            help="Split energy into stem, coding and backbone; compare each coding with direct.",
        ),
    ] = False,
    vs_ann: Annotated[
        bool,
        typer.Option(
            "--vs-ann",
            help="Compare with the ANN and quantised ANN of this shape; break-even firing rates.",
        ),
    ] = False,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Add what papers report on the same data sets, without ranking it.",
        ),
    ] = False,
    format: Annotated[
        str, typer.Option(help="Output format: table, json, csv, markdown or svg.")
    ] = "table",
) -> None:
    """Rank the finished cells, averaged over seeds, within each data set, recipe and backbone.

    Example: codingbench leaderboard --sort energy --T 4 --where "epochs >= 4"
    """
    from codingbench.views.leaderboard import present

    write(
        present(
            opened(results),
            Pricing.of("exact" if energy == "all" else energy, technology),
            sort=sort,
            selection=selection,
            form=format,
            every_energy=energy == "all",
            bill=bill,
            vs_ann=vs_ann,
            beside_published=published,
        )
    )
