"""``codingbench compare``."""

from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli import options
from codingbench.cli.output import write
from codingbench.energy import CONVENTIONS, DEFAULT_TECHNOLOGY, Pricing


def compare(
    encoders: Annotated[
        list[str], typer.Argument(help="Two codings or more, as codingbench run takes them.")
    ],
    dataset: Annotated[str | None, typer.Option(help="Only this data set.")] = None,
    T: Annotated[str | None, typer.Option("--T", help="Only these T: 2,4,6.")] = None,
    results: options.ResultsFolder = Path("results"),
    energy: Annotated[
        str,
        typer.Option(help=f"Energy convention: {', '.join(CONVENTIONS)} or file.py:variable."),
    ] = "exact",
    technology: options.Technology = DEFAULT_TECHNOLOGY,
    format: Annotated[str, typer.Option(help="table, json, csv or markdown.")] = "table",
) -> None:
    """Compare codings pair by pair, over the same seeds and test images: is one better, how surely?

    Example: codingbench compare gac direct --T 2,4,6
    """
    from codingbench.store.folder import Store
    from codingbench.views.comparison import present

    write(present(Store(results), encoders, dataset, T, format, Pricing.of(energy, technology)))
