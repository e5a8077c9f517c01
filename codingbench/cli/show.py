"""``codingbench show``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from codingbench.cli import options
from codingbench.cli.output import write
from codingbench.cli.selecting import (
    CELL_HELP,
    ResultsFolders,
    SeedOption,
    opened,
    selecting,
    with_seed,
)
from codingbench.energy import CONVENTIONS, DEFAULT_TECHNOLOGY, pricings
from codingbench.runtime.paths import user_path

if TYPE_CHECKING:
    from codingbench.analysis.selection import Selection
    from codingbench.plugins.loading import OwnCode
    from codingbench.store.folder import Store

PICTURE: Final = "Picture"


@selecting("encoders", "seeds")
def show(
    selection: "Selection",
    cell: Annotated[str, typer.Argument(help=CELL_HELP)],
    seed: SeedOption = None,
    results: ResultsFolders = [Path("results")],  # noqa: B006  # typer copies it
    energy: Annotated[
        str,
        typer.Option(
            help=f"Energy conventions, comma-separated: {', '.join(CONVENTIONS)}, "
            "file.py:variable, or all."
        ),
    ] = "exact,paper",
    technology: options.Technology = DEFAULT_TECHNOLOGY,
    format: Annotated[str, typer.Option(help="Output format: table or json.")] = "table",
    plot: Annotated[
        Path | None,
        options.option(
            "--plot",
            panel=PICTURE,
            parser=user_path,
            metavar="PATH",
            help="Draw the spikes of each layer and step for one test image: .png, .pdf or .svg.",
        ),
    ] = None,
    image: Annotated[
        int,
        options.option("--image", panel=PICTURE, help="Test image to draw, counted from 0."),
    ] = 0,
    data_dir: options.DataFolder = None,
    plugin: options.Plugin = None,
    trust_code: options.TrustCode = False,
) -> None:
    """Show everything about one cell: steps, layers, spike purity and epochs, or why it failed.

    --plot runs a test image through the trained network, whose weights must have been kept.

    Example: codingbench show direct --seed 0 --T 4
    """
    from codingbench.views.cell import key_of, present

    priced = pricings([name.strip() for name in energy.split(",")], technology)
    store = opened(results)
    key = key_of(store, cell, with_seed(selection, seed))
    if plot is not None:
        _draw(plot, store, key, image, data_dir, options.own_code(plugin, trust_code))
    write(present(store, key, priced, format))


def _draw(
    path: Path, store: "Store", key: str, image: int, data_dir: Path | None, own: "OwnCode"
) -> None:
    """Draw the cell with the weights of the first folder that has it."""
    from codingbench.inspection.picture import check_target
    from codingbench.runtime.openmp import prepare_torch

    prepare_torch()
    from codingbench.inspection.raster import raster_of
    from codingbench.inspection.raster_picture import draw_raster

    check_target(path)
    draw_raster(path, raster_of(store.holding(key), key, image, data_dir, own))
