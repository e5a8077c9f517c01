"""How every command prints its result."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType


def write(shown: "str | RenderableType") -> None:
    """Print to stdout, text as it is and tables as wide and coloured as the terminal allows."""
    if isinstance(shown, str):
        typer.echo(shown, nl=False)
    else:
        from rich.console import Console

        Console().print(shown)
