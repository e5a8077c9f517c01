"""``codingbench export``."""

from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli import options


def export(
    cell: Annotated[str, typer.Argument(help="Key of a cell, or its first 4 or more characters.")],
    format: Annotated[
        str, typer.Option(help="state_dict (torch.load), or nir (needs codingbench[nir]).")
    ] = "state_dict",
    output: Annotated[
        Path | None, typer.Option(help="The file [default: the key with .pt or .nir].")
    ] = None,
    selected: Annotated[
        bool,
        typer.Option("--selected", help="Weights of the best epoch in validation, not the last."),
    ] = False,
    results: options.ResultsFolder = Path("results"),
    data_dir: Annotated[Path | None, typer.Option(help="Where data sets are.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Write the trained network of a cell into a file for other tools, with a model card beside it.

    A NIR graph is written only if, read back and run, it has the same spikes as the network on test
    images and the same logits; what NIR cannot say is refused.

    Example: codingbench export 3f9a12c4 --format nir --output network.nir
    """
    from codingbench.runtime.openmp import prepare_torch

    prepare_torch()
    from codingbench.export import files
    from codingbench.store.folder import Store

    done = files.export(Store(results), cell, format, output, selected, data_dir, force)
    for path in (done.path, done.card):
        typer.echo(f"{path}: {path.stat().st_size:,} bytes")
    for shown in done.shown:
        typer.echo(shown)
