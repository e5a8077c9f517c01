"""``codingbench check``."""

from typing import Annotated

import typer

from codingbench.cli.output import write


def check(
    context: typer.Context,
    plugin: Annotated[
        str, typer.Argument(help="Coding or backbone: name[param=value] or file.py:Class.")
    ],
    format: Annotated[str, typer.Option(help="table or json.")] = "table",
) -> None:
    """Check that a coding or backbone keeps its contract.

    The exit status is 1 if a check fails. codingbench --debug check PLUGIN also
    shows the tracebacks of exceptions that the plug-in raises.

    Example: codingbench check "gac[kernel_size=3]" --format json
    """
    from codingbench.runtime.openmp import prepare_torch

    prepare_torch()
    from rich.console import Console
    from rich.markup import escape

    from codingbench.conformance.examination import check_plugin
    from codingbench.views.conformance import check_format, render

    check_format(format)
    with Console(stderr=True).status(f"loading {escape(plugin)}") as status:
        report = check_plugin(plugin, begins=lambda check: status.update(check.name))
    write(render(report, format))
    if context.find_root().params["debug"]:
        typer.echo("".join(report.tracebacks()), err=True, nl=False)
    if report.of("failed"):
        raise typer.Exit(1)
