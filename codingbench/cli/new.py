"""``codingbench new``: write the first version of a plug-in or a recipe."""

import os
from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli.command import Command

app = typer.Typer(
    no_args_is_help=True,
    help="""Write a new encoder, backbone or recipe that works at once, for you to change.

    Example: codingbench new encoder my_coding
    """,
)

Name = Annotated[
    str, typer.Argument(help="Name in snake case; my_coding becomes the class MyCoding.")
]
Folder = Annotated[
    Path,
    typer.Option(
        help="Folder for the new file; no file is overwritten.",
        parser=lambda text: Path(os.path.expanduser(text)),  # the next commands name the file
        metavar="PATH",
    ),
]


@app.command("encoder", cls=Command)
def encoder(
    name: Name,
    kind: Annotated[
        str,
        typer.Option(
            help="What it codes: pixel (pixels to spikes) or feature (the stem's output)."
        ),
    ] = "pixel",
    folder: Folder = Path(),
) -> None:
    """Write NAME.py with a small encoder that works as it is, and show the next commands.

    Example: codingbench new encoder my_coding --kind feature
    """
    from codingbench.cli.output import write
    from codingbench.scaffold.new import new_encoder

    write(str(new_encoder(name, kind, folder)))


@app.command("backbone", cls=Command)
def backbone(
    name: Annotated[
        str, typer.Argument(help="Name in snake case; my_backbone becomes the class MyBackbone.")
    ],
    folder: Folder = Path(),
) -> None:
    """Write NAME.py with a small backbone that works as it is, and show the next commands.

    Example: codingbench new backbone my_backbone
    """
    from codingbench.cli.output import write
    from codingbench.scaffold.new import new_backbone

    write(str(new_backbone(name, folder)))


@app.command("recipe", cls=Command)
def recipe(
    name: Annotated[str, typer.Argument(help="Name in small letters, such as my_recipe.")],
    extends: Annotated[
        str, typer.Option(help="Recipe to start from: a name, or the path of a TOML file.")
    ] = "quick",
    folder: Folder = Path(),
) -> None:
    """Write NAME.toml, a recipe that extends another, and show the next commands.

    The file holds only what differs; every setting of the other recipe is in it as a comment.

    Example: codingbench new recipe my_recipe --extends gac
    """
    from codingbench.cli.output import write
    from codingbench.scaffold.recipe import new_recipe

    write(str(new_recipe(name, extends, folder)))
