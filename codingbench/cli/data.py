"""``codingbench data``: list, download and import data sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codingbench.cli import options
from codingbench.cli.command import Command
from codingbench.cli.output import write
from codingbench.runtime.paths import user_path

if TYPE_CHECKING:
    from codingbench.datasets import Source

app = typer.Typer(no_args_is_help=False)

Name = Annotated[str, typer.Argument(help="Name of the data set, e.g. cifar10.")]


@app.callback(invoke_without_command=True)
def data(context: typer.Context, data_dir: options.DataFolder = None) -> None:
    """List all data sets and where each was found.

    Example: codingbench data --data-dir ~/datasets
    """
    context.obj = data_dir
    if context.invoked_subcommand is None:
        from codingbench.views.datasets import render

        write(render(data_dir))


@app.command("fetch", cls=Command)
def fetch_command(context: typer.Context, name: Name, data_dir: options.DataFolder = None) -> None:
    """Download a data set unless it is already there.

    Example: codingbench data fetch cifar10
    """
    from codingbench.datasets import fetch
    from codingbench.views.downloads import DownloadBars

    with DownloadBars() as bars:
        source = fetch(name, data_dir or context.obj, bars)
    _report(source)


@app.command("import", cls=Command)
def import_command(
    context: typer.Context,
    path: Annotated[
        Path,
        typer.Argument(
            help="Folder with the files, or CIFAR's .tar.gz archive.",
            parser=user_path,
            metavar="PATH",
        ),
    ],
    name: Annotated[str, typer.Option("--as", help="Name of the data set, e.g. cifar10.")],
    data_dir: options.DataFolder = None,
) -> None:
    """Check the files of a data set and copy them to the folder where codingbench finds them.

    Example: codingbench data import ~/Downloads/cifar-10-python.tar.gz --as cifar10
    """
    from codingbench.datasets import import_files

    _report(import_files(path, name, data_dir or context.obj))


def _report(source: "Source") -> None:
    typer.echo(f"{source.info.name}: {source.form} in {source.folder} ({source.fingerprint()})")
