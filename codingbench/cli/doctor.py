"""``codingbench doctor``: can this machine run benchmarks?"""

from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli import options
from codingbench.cli.output import write


def doctor(
    results: options.ResultsFolder = Path("results"),
    data_dir: options.DataFolder = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile and run a neuron, too: takes seconds.")
    ] = False,
) -> None:
    """Report versions, devices, compiler, disk and data sets; exit status 1 if something fails.

    Example: codingbench doctor --results ~/snn-results
    """
    from codingbench.doctor import diagnose
    from codingbench.views.doctor import render

    diagnoses = diagnose(results, data_dir, compile)
    write(render(diagnoses))
    if any(diagnosis.state == "fail" for diagnosis in diagnoses):
        raise typer.Exit(1)
