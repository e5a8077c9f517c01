"""``codingbench new``: a file to start a plug-in of one's own from."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="""Start a coding or a backbone of your own from a file that works at once.

    Example: codingbench new encoder my_coding
    """,
)

Name = Annotated[str, typer.Argument(help="In snake case: my_coding is the class MyCoding.")]
Folder = Annotated[Path, typer.Option(help="Where the file is written; none is overwritten.")]


@app.command("encoder")
def encoder(
    name: Name,
    kind: Annotated[
        str, typer.Option(help="What is coded: pixel (spikes), or feature (the stem's output).")
    ] = "pixel",
    folder: Folder = Path(),
) -> None:
    """Write NAME.py, a small coding that can be run as it is, and say what to do next.

    Example: codingbench new encoder my_coding --kind feature
    """
    from codingbench.cli.output import write
    from codingbench.scaffold.new import new_encoder

    write(str(new_encoder(name, kind, folder)))


@app.command("backbone")
def backbone(name: Name, folder: Folder = Path()) -> None:
    """Write NAME.py, a small backbone that can be run as it is, and say what to do next.

    Example: codingbench new backbone my_backbone
    """
    from codingbench.cli.output import write
    from codingbench.scaffold.new import new_backbone

    write(str(new_backbone(name, folder)))
