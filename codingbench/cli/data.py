"""``codingbench data``: the data sets, where they were found, and how to bring them in."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from codingbench.datasets import DatasetInfo, Source, catalogue, fetch, find, import_files, places
from codingbench.errors import DatasetError

app = typer.Typer(no_args_is_help=False)

DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of data sets; the platform's cache folder is looked at too."),
]
Name = Annotated[str, typer.Argument(help="Name of the data set, e.g. cifar10.")]


@app.callback(invoke_without_command=True)
def data(context: typer.Context, data_dir: DataDir = None) -> None:
    """List the data sets, and where each was found.

    Example: codingbench data --data-dir ~/datasets
    """
    context.obj = data_dir
    if context.invoked_subcommand is None:
        Console().print(_table(data_dir))


@app.command("fetch")
def fetch_command(context: typer.Context, name: Name, data_dir: DataDir = None) -> None:
    """Download a data set, unless it is there already.

    Example: codingbench data fetch cifar10
    """
    _report(fetch(name, data_dir or context.obj))


@app.command("import")
def import_command(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="A folder of the files, or CIFAR's .tar.gz.")],
    name: Annotated[str, typer.Option("--as", help="Name of the data set in these files.")],
    data_dir: DataDir = None,
) -> None:
    """Check the files of a data set and copy them to where codingbench looks for them.

    Example: codingbench data import ~/Downloads/cifar-10-python.tar.gz --as cifar10
    """
    _report(import_files(path, name, data_dir or context.obj))


def _report(source: Source) -> None:
    typer.echo(f"{source.info.name}: {source.form} in {source.folder} ({source.fingerprint()})")


def _table(data_dir: Path | None) -> Table:
    headings = ("data set, fingerprint", "images", "what it is, where it was found")
    table = Table(*headings, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.show_lines = True
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.columns[2].overflow = "fold"
    for info in catalogue().values():
        fingerprint, whereabouts = _whereabouts(info, data_dir)
        table.add_row(
            f"{info.name}\n{fingerprint}",
            f"{info.num_classes} classes, {info.channels}x{info.height}x{info.width}"
            f"\n{info.train_size} train + {info.test_size} test",
            f"{info.title}: {info.about} (licence: {info.licence})\n{escape(whereabouts)}",
        )
    return table


def _whereabouts(info: DatasetInfo, data_dir: Path | None) -> tuple[str, str]:
    """The fingerprint, and the place of the files or what is wrong with them."""
    try:
        source = find(info.name, data_dir)
        if source:
            return source.fingerprint(), f"{source.form} in {source.folder}"
        return "-", f"not found in {', '.join(map(str, places(info.name, data_dir)))}"
    except DatasetError as error:
        return "-", str(error)
