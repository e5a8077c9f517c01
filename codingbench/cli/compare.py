"""``codingbench compare``."""

from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli import options
from codingbench.cli.output import write
from codingbench.energy import CONVENTIONS, DEFAULT_TECHNOLOGY, Pricing


def compare(
    encoders: Annotated[
        list[str], typer.Argument(help="At least two codings, named as for codingbench run.")
    ],
    dataset: Annotated[str | None, typer.Option(help="Compare only on this data set.")] = None,
    T: Annotated[
        str | None, typer.Option("--T", help="Compare only at these T, such as 2,4,6.")
    ] = None,
    results: options.ResultsFolder = Path("results"),
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

    Example: codingbench compare gac direct --T 2,4,6
    """
    from codingbench.store.folder import Store
    from codingbench.views.comparison import present

    write(
        present(
            Store(results),
            encoders,
            dataset=dataset,
            num_steps=T,
            form=format,
            pricing=Pricing.of(energy, technology),
        )
    )
