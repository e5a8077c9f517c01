"""``codingbench list``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from codingbench.cli.selecting import ResultsFolders, opened, selecting

if TYPE_CHECKING:
    from codingbench.analysis.selection import Selection

CELLS: Final = "cells"
KINDS: Final = ("encoders", "backbones", "neurons", "datasets", "recipes", "energies", CELLS)


@selecting()
def list_plugins(
    selection: "Selection",
    kind: Annotated[str, typer.Argument(help=f"What to list: {', '.join(KINDS)}.")],
    results: ResultsFolders = [Path("results")],  # noqa: B006  # typer copies it
    format: Annotated[str, typer.Option(help="Output format: table or json.")] = "table",
) -> None:
    """List encoders, backbones, neurons, data sets, recipes, energies, or the finished cells.

    Cells are those of a results folder that the options select.

    Example: codingbench list cells --encoders direct
    """
    from codingbench.cli.output import write
    from codingbench.errors import SpecError, unknown
    from codingbench.views import cells, listing

    if kind not in KINDS:
        raise SpecError(unknown("kind of list", kind, KINDS))
    if kind == CELLS:
        write(cells.present(opened(results), selection, format))
        return
    if selection:
        raise SpecError(f"options that select cells need list cells, got list {kind}")
    write(listing.present(kind, format))
