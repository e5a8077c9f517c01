"""The options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from codingbench.energy import TECHNOLOGIES

BatchSize = Annotated[str | None, typer.Option(help="Instead of the recipe's.")]
DataDir = Annotated[str | None, typer.Option(help="Where data sets are.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Devices = Annotated[
    str | None, typer.Option(help="That train each cell together, from that one on [default: 1].")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the cells and an estimate of their time.")
]
Epochs = Annotated[str | None, typer.Option(help="Instead of the recipe's.")]
Precision = Annotated[str | None, typer.Option(help="fp32 or bf16.")]
Results = Annotated[str | None, typer.Option(help="Results folder [default: results].")]
ResultsFolder = Annotated[Path, typer.Option(help="Results folder.")]
Technology = Annotated[
    str,
    typer.Option(help=f"What an operation costs: {', '.join(TECHNOLOGIES)} or file.py:variable."),
]
TestSamples = Annotated[str | None, typer.Option(help="Test on so many images.")]
TrainSamples = Annotated[
    str | None, typer.Option(help="Train on so many images, balanced over the classes.")
]
Workers = Annotated[
    str | None, typer.Option(help="Cells side by side [default: where that is faster].")
]


def given(context: typer.Context) -> dict[str, object]:
    """What the command's options say of the grid and how to run it, by the names of settings."""
    from codingbench.cells.settings import GRID_FIELDS, OTHER_SETTINGS

    said = {name: context.params.get(name) for name in (*GRID_FIELDS, *OTHER_SETTINGS)}
    return {name: value for name, value in said.items() if value is not None}
