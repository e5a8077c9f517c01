"""``codingbench leaderboard``."""

from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli.output import write
from codingbench.energy import CONVENTIONS


def leaderboard(
    results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results"),
    dataset: Annotated[str | None, typer.Option(help="Only this data set.")] = None,
    sort: Annotated[
        str, typer.Option(help="accuracy, energy, firing-rate, parameters, T or encoder.")
    ] = "accuracy",
    energy: Annotated[
        str, typer.Option(help=f"Energy convention: {', '.join(CONVENTIONS)}.")
    ] = "exact",
    format: Annotated[str, typer.Option(help="table, json, csv, markdown or svg.")] = "table",
) -> None:
    """Rank the finished cells, seeds averaged, within each data set, recipe and backbone.

    Example: codingbench leaderboard --sort energy --energy paper
    """
    from codingbench.leaderboard_formats import present
    from codingbench.store import Store

    write(present(Store(results), energy, sort, dataset, format))
