"""The ``codingbench`` command: its subcommands, and its exit status."""

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
from codingbench.cli.status import status
from codingbench.cli.stores import compact, merge, verify
from codingbench.errors import CodingbenchError, printable
from codingbench.runtime.encoding import replace_unknown_characters
from codingbench.runtime.paths import as_typed

app = typer.Typer(
    name="codingbench",
    help="Benchmarks input codings of spiking neural networks: accuracy, firing rate, energy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # the default mode takes latency[scale=log] for markup
)
app.command("run")(run)
app.command("status")(status)
app.command("leaderboard")(leaderboard)
app.command("report")(report)
app.command("compare")(compare)
app.command("show")(show)
app.command("inspect")(inspect)
app.command("check")(check)
app.command("robustness")(robustness)
app.command("reproduce")(reproduce)
app.command("export")(export)
app.command("verify")(verify)
app.command("merge")(merge)
app.command("compact")(compact)
app.command("list")(list_plugins)
app.add_typer(data.app, name="data")
app.add_typer(new.app, name="new")
app.command("doctor")(doctor)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    """Benchmarks input codings of spiking neural networks: accuracy, firing rate, energy."""


def main() -> None:
    """Run the command line and end the process with its exit status.

    0: all done; 1: a cell failed or a check found something; 2: the request was wrong; 130 or 143:
    stopped by Ctrl-C or SIGTERM.
    """
    if "--version" in sys.argv[1:2]:
        typer.echo(f"codingbench {__version__}")
        return
    replace_unknown_characters()
    try:
        app()
    except (CodingbenchError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"error: {as_typed(printable(_message(error)))}", err=True)
        sys.exit(2)


def _message(error: CodingbenchError | OSError) -> str:
    """Return the message of an error; of one of the system without its number."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"cannot use {str(error.filename)!r}: {error.strerror}"
    return str(error)
