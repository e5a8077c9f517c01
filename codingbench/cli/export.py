"""``codingbench export``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codingbench.cli import options
from codingbench.cli.selecting import CELL_HELP, SeedOption, selecting, with_seed
from codingbench.runtime.paths import user_path

if TYPE_CHECKING:
    from codingbench.analysis.selection import Selection


@selecting("encoders", "seeds")
def export(
    selection: "Selection",
    cell: Annotated[str, typer.Argument(help=CELL_HELP)],
    seed: SeedOption = None,
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

    Example: codingbench export gac --T 4 --seed 0 --output network.pt
    """
    from codingbench.runtime.openmp import prepare_torch

    prepare_torch()
    from codingbench.export import files
    from codingbench.store.folder import Store
    from codingbench.views.cell import key_of

    own = options.own_code(plugin, trust_code)
    store = Store(results)
    key = key_of(store, cell, with_seed(selection, seed))
    done = files.export(store, key, format, output, selected, data_dir, force, own)
    for path in (done.path, done.card):
        typer.echo(f"{path}: {path.stat().st_size:,} bytes")
    for shown in done.shown:
        typer.echo(shown)
