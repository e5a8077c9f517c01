"""``codingbench export``."""

from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli import options
from codingbench.runtime.paths import user_path


def export(
    cell: Annotated[str, typer.Argument(help="Key of a cell, or its first 4 or more characters.")],
    format: Annotated[
        str, typer.Option(help="state_dict (for torch.load), or nir (needs codingbench[nir]).")
    ] = "state_dict",
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write [default: the key with .pt or .nir].",
            parser=user_path,
            metavar="PATH",
        ),
    ] = None,
    selected: Annotated[
        bool,
        typer.Option(
            "--selected", help="Export the weights of the epoch with the best validation accuracy."
        ),
    ] = False,
    results: options.ResultsFolder = Path("results"),
    data_dir: options.DataFolder = None,
    plugin: options.Plugin = None,
    trust_code: options.TrustCode = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Export the trained network of a cell for other tools, with a model card.

    A NIR graph is first read back and run: on test images it must emit the
    same spikes and logits as the network, up to rounding of the logits.
    Networks that NIR cannot express are refused.

    Example: codingbench export 3f9a12c4 --format nir --output network.nir
    """
    from codingbench.runtime.openmp import prepare_torch

    prepare_torch()
    from codingbench.export import files
    from codingbench.store.folder import Store

    own = options.own_code(plugin, trust_code)
    done = files.export(Store(results), cell, format, output, selected, data_dir, force, own)
    for path in (done.path, done.card):
        typer.echo(f"{path}: {path.stat().st_size:,} bytes")
    for shown in done.shown:
        typer.echo(shown)
