"""The ``codingbench`` command: its subcommands, and how errors end it."""

import sys
from typing import Annotated

import typer

from codingbench import __version__
from codingbench.cli import data, new
from codingbench.cli.check import check
from codingbench.cli.compare import compare
from codingbench.cli.doctor import doctor
from codingbench.cli.export import export
from codingbench.cli.inspect import inspect
from codingbench.cli.leaderboard import leaderboard
from codingbench.cli.listing import list_plugins
from codingbench.cli.report import report
from codingbench.cli.reproduce import reproduce
from codingbench.cli.robustness import robustness
from codingbench.cli.run import run
from codingbench.cli.show import show
from codingbench.cli.stores import compact, merge, verify
from codingbench.cli.verbatim import VerbatimCommand
from codingbench.errors import CodingbenchError, printable

app = typer.Typer(
    name="codingbench",
    help="Benchmarks input codings of spiking neural networks: accuracy, firing rate, energy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run", cls=VerbatimCommand)(run)
app.command("leaderboard", cls=VerbatimCommand)(leaderboard)
app.command("report", cls=VerbatimCommand)(report)
app.command("compare", cls=VerbatimCommand)(compare)
app.command("show", cls=VerbatimCommand)(show)
app.command("inspect", cls=VerbatimCommand)(inspect)
app.command("check", cls=VerbatimCommand)(check)
app.command("robustness", cls=VerbatimCommand)(robustness)
app.command("reproduce", cls=VerbatimCommand)(reproduce)
app.command("export", cls=VerbatimCommand)(export)
app.command("verify", cls=VerbatimCommand)(verify)
app.command("merge", cls=VerbatimCommand)(merge)
app.command("compact", cls=VerbatimCommand)(compact)
app.command("list", cls=VerbatimCommand)(list_plugins)
app.add_typer(data.app, name="data")
app.add_typer(new.app, name="new")
app.command("doctor", cls=VerbatimCommand)(doctor)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    """Benchmarks input codings of spiking neural networks: accuracy, firing rate, energy."""


def main() -> None:
    """Run the command line; leaves with 0, 1 (some cell failed), 2 (bad request), 130 (Ctrl-C)."""
    if "--version" in sys.argv[1:2]:
        typer.echo(f"codingbench {__version__}")
        return
    try:
        app()
    except (CodingbenchError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        # the file system's own word names the file: a name too long, a folder not to be read
        typer.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(2)
