"""``codingbench inspect``."""

from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli.output import write
from codingbench.energy import CONVENTIONS, Pricing


def inspect(
    encoders: Annotated[
        str, typer.Argument(help="Codings, comma-separated: name[param=value], or file.py:Class.")
    ],
    dataset: Annotated[str, typer.Option(help="Data set: codingbench data.")] = "fashion_mini",
    T: Annotated[int, typer.Option("--T", help="Time steps.")] = 4,
    samples: Annotated[
        int, typer.Option(help="Training images, one half to fit on and one to score.")
    ] = 400,
    backbone: Annotated[str, typer.Option(help="Whose stem and neuron they get.")] = "csnn",
    seed: Annotated[int, typer.Option(help="Of initial weights and random codes.")] = 0,
    data_dir: Annotated[Path | None, typer.Option(help="Where data sets are.")] = None,
    energy: Annotated[
        str, typer.Option(help=f"Energy convention: {', '.join(CONVENTIONS)}, or file.py:variable.")
    ] = "exact",
    plot: Annotated[
        Path | None, typer.Option(help="Draw a picture: file.png, .pdf or .svg.")
    ] = None,
    format: Annotated[str, typer.Option(help="table or json.")] = "table",
) -> None:
    """Look at codings before any training: what they emit, what it says of the image, its cost.

    Example: codingbench inspect "latency,latency[scale=log]" --T 8 --plot latency.png
    """
    from codingbench.plugins.specs import split_list
    from codingbench.runtime.openmp import prepare_torch

    prepare_torch()
    from codingbench.views.inspection import present

    write(
        present(
            split_list(encoders),
            dataset,
            T,
            samples,
            backbone,
            seed,
            data_dir,
            Pricing.of(energy),
            plot,
            format,
        )
    )
