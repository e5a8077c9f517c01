"""The ``codingbench`` command: its subcommands, and its exit status."""

import sys
import warnings
from typing import Annotated, Any

import typer

from codingbench import __version__
from codingbench.cli import data, new
from codingbench.cli.check import check
from codingbench.cli.command import Command
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
from codingbench.cli.stores import compact, diff, merge, rm, verify
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
app.command("run", cls=Command)(run)
app.command("status", cls=Command)(status)
app.command("leaderboard", cls=Command)(leaderboard)
app.command("report", cls=Command)(report)
app.command("compare", cls=Command)(compare)
app.command("show", cls=Command)(show)
app.command("inspect", cls=Command)(inspect)
app.command("check", cls=Command)(check)
app.command("robustness", cls=Command)(robustness)
app.command("reproduce", cls=Command)(reproduce)
app.command("export", cls=Command)(export)
app.command("verify", cls=Command)(verify)
app.command("merge", cls=Command)(merge)
app.command("compact", cls=Command)(compact)
app.command("diff", cls=Command)(diff)
app.command("rm", cls=Command)(rm)
app.command("list", cls=Command)(list_plugins)
app.add_typer(data.app, name="data")
app.add_typer(new.app, name="new")
app.command("doctor", cls=Command)(doctor)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    """Benchmarks input codings of spiking neural networks: accuracy, firing rate, energy."""


def _one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    """Return a warning without its place in the code, which a user did not write."""
    return f"warning: {printable(str(message))}\n"


def main() -> None:
    """Run the command line and end the process with its exit status.

    0: all done; 1: a cell failed or a check found something; 2: the request was wrong; 130 or 143:
    stopped by Ctrl-C or SIGTERM.
    """
    if "--version" in sys.argv[1:2]:
        typer.echo(f"codingbench {__version__}")
        return
    replace_unknown_characters()
    warnings.formatwarning = _one_line
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
