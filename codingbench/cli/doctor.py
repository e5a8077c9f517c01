"""``codingbench doctor``: whether this machine can run benchmarks."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from codingbench.doctor import Finding, diagnose

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("results"),
    data_dir: Annotated[Path | None, typer.Option(help="Folder of data sets.")] = None,
) -> None:
    """Report versions, devices, compiler, disk and data sets; exit status 1 if something fails.

    Example: codingbench doctor --results ~/snn-results
    """
    findings = diagnose(results, data_dir)
    Console().print(_table(findings))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _table(findings: list[Finding]) -> Table:
    table = Table("", "what", "found", "advice", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.columns[0].no_wrap = True
    table.columns[2].overflow = "fold"
    for finding in findings:
        state = f"[{COLOURS[finding.state]}]{finding.state}"
        table.add_row(state, *map(escape, (finding.name, finding.value, finding.advice)))
    return table
