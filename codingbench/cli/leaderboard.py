"""``codingbench leaderboard``."""

from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli import options
from codingbench.cli.output import write
from codingbench.energy import CONVENTIONS, DEFAULT_TECHNOLOGY, Pricing


def leaderboard(
    results: options.ResultsFolder = Path("results"),
    dataset: Annotated[str | None, typer.Option(help="Show only this data set.")] = None,
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

    Example: codingbench leaderboard --sort energy --energy paper
    """
    from codingbench.store.folder import Store
    from codingbench.views.leaderboard import present

    write(
        present(
            Store(results),
            Pricing.of("exact" if energy == "all" else energy, technology),
            sort=sort,
            dataset=dataset,
            form=format,
            every_energy=energy == "all",
            bill=bill,
            vs_ann=vs_ann,
            beside_published=published,
        )
    )
