"""``codingbench new``: write the first version of a plug-in."""

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="""Write a new encoder or backbone that works at once, for you to change.

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


@app.command("encoder")
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


@app.command("backbone")
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
