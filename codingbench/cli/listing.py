"""``codingbench list``."""

from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """The kinds of things to list."""

    encoders = "encoders"
    backbones = "backbones"
    datasets = "datasets"
    recipes = "recipes"


def list_plugins(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List the available encoders, backbones, data sets or recipes, with default parameters.

    Example: codingbench list encoders
    """
    from codingbench.cli.output import write
    from codingbench.views.listing import render

    write(render(kind.value))
