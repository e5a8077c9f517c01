"""``codingbench list``."""

from typing import Annotated, Final

import typer

KINDS: Final = ("encoders", "backbones", "datasets", "recipes", "energies")


def list_plugins(
    kind: Annotated[str, typer.Argument(help=f"What to list: {', '.join(KINDS)}.")],
) -> None:
    """List the available encoders, backbones, data sets, recipes or energy conventions.

    Example: codingbench list encoders
    """
    from codingbench.cli.output import write
    from codingbench.errors import SpecError, unknown
    from codingbench.views.listing import render

    if kind not in KINDS:
        raise SpecError(unknown("kind of list", kind, KINDS))
    write(render(kind))
