"""``codingbench doctor``: whether this machine can run benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli.output import write


def doctor(
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("results"),
    data_dir: Annotated[Path | None, typer.Option(help="Folder of data sets.")] = None,
) -> None:
    """Report versions, devices, compiler, disk and data sets; exit status 1 if something fails.

    Example: codingbench doctor --results ~/snn-results
    """
    from codingbench.doctor import diagnose, render

    findings = diagnose(results, data_dir)
    write(render(findings))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)
