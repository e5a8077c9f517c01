"""``codingbench inspect``."""

from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli import options
from codingbench.cli.output import write
from codingbench.energy import CONVENTIONS, DEFAULT_TECHNOLOGY, Pricing
from codingbench.runtime.paths import user_path


def inspect(
    encoders: Annotated[
        str, typer.Argument(help="Codings, comma-separated: name[param=value] or file.py:Class.")
    ],
    dataset: Annotated[str, typer.Option(help="Data set; see codingbench data.")] = "fashion_mini",
    T: Annotated[int, typer.Option("--T", help="Number of time steps.")] = 4,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Number of training images; half are fitted, half scored. "
            "[default: 400, or all if fewer]"
        ),
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="Backbone whose stem and neurons the codings use.")
    ] = "csnn",
    seed: Annotated[int, typer.Option(help="Seed of initial weights and of random codes.")] = 0,
    data_dir: options.DataFolder = None,
    energy: Annotated[
        str, typer.Option(help=f"Energy convention: {', '.join(CONVENTIONS)} or file.py:variable.")
    ] = "exact",
    technology: options.Technology = DEFAULT_TECHNOLOGY,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw a picture into this file: .png, .pdf or .svg.",
            parser=user_path,
            metavar="PATH",
        ),
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="Show each of several codings in full, too.")
    ] = False,
    format: Annotated[str, typer.Option(help="table or json.")] = "table",
) -> None:
    """Inspect codings before any training: their code, its information and its cost.

    The information is how well a linear read-out reconstructs the image.

    Example: codingbench inspect "latency,latency[scale=log]" --T 8 --plot latency.png
    """
    from codingbench.plugins.specs import split_list
    from codingbench.runtime.openmp import prepare_torch

    prepare_torch()
    from codingbench.inspection.session import inspect_codings
    from codingbench.views.inspection import present
    from codingbench.views.writers import DOCUMENT_FORMATS, check_format

    check_format(format, DOCUMENT_FORMATS)
    found = inspect_codings(
        split_list(encoders),
        dataset,
        num_steps=T,
        samples=samples,
        backbone=backbone,
        seed=seed,
        data_dir=data_dir,
        pricing=Pricing.of(energy, technology),
        plot=plot,
    )
    write(present(found, format, long))
