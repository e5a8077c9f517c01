"""``codingbench leaderboard``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codingbench.cli import options
from codingbench.cli.output import write
from codingbench.cli.selecting import ResultsFolders, opened, selecting
from codingbench.energy import CONVENTIONS, DEFAULT_TECHNOLOGY

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
        str | None,
        typer.Option(
            help=f"Energy conventions: {', '.join(CONVENTIONS)}, file.py:variable, or a list of "
            "them; all: every convention with its ranks. [default: exact,memory]",
            show_default=False,
        ),
    ] = None,
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
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Columns: rank, same, accuracy, balanced, interval, selected, firing-rate, "
            "energy, energy:CONVENTION, parameters, keys.",
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Show only the first rows of each comparison.")
    ] = None,
    keys: Annotated[
        bool, typer.Option("--keys", help="Show the keys of the cells behind each row.")
    ] = False,
    format: Annotated[
        str, typer.Option(help="Output format: table, json, csv, markdown, latex or svg.")
    ] = "table",
) -> None:
    """Rank the finished cells, averaged over seeds, within each data set, recipe and backbone.

    Example: codingbench leaderboard --sort energy --T 4 --where "epochs >= 4"
    """
    from codingbench.views.asked import Asked
    from codingbench.views.leaderboard import present

    asked = Asked(
        energy=energy,
        technology=technology,
        bill=bill,
        vs_ann=vs_ann,
        published=published,
        columns=columns,
        top=top,
        keys=keys,
    )
    write(present(opened(results), asked, sort=sort, selection=selection, form=format))
