"""``codingbench list``."""

from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """What can be listed."""

    encoders = "encoders"
    backbones = "backbones"
    datasets = "datasets"
    recipes = "recipes"


def list_plugins(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List what the grid's axes can name, with parameters and their defaults.

    Example: codingbench list encoders
    """
    from codingbench.cli.output import write
    from codingbench.views.listing import render

    write(render(kind.value))
