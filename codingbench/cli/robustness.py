"""``codingbench robustness``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codingbench.cli import options
from codingbench.cli.output import write
from codingbench.cli.selecting import selecting
from codingbench.robustness.attacks import ATTACKS, EPS

if TYPE_CHECKING:
    from codingbench.analysis.selection import Selection

_NAMES = ", ".join(name for name, attack in ATTACKS.items() if attack.perturbs != "nothing")
_EPS = ",".join(f"{eps:g}" for eps in EPS)


@selecting()
def robustness(
    selection: "Selection",
    cells: Annotated[
        list[str] | None,
        typer.Argument(help="Keys of cells, or their first 4 or more characters; or all."),
    ] = None,
    results: options.ResultsFolder = Path("results"),
    data_dir: options.DataFolder = None,
    plugin: options.Plugin = None,
    trust_code: options.TrustCode = False,
    samples: Annotated[
        int, typer.Option(help="Largest number of test images, balanced over the classes.")
    ] = 500,
    attacks: Annotated[
        str | None, typer.Option(help=f"Comma-separated: {_NAMES} [default: all]")
    ] = None,
    eps: Annotated[
        str, typer.Option(help="Largest changes of a pixel, in 1/255, comma-separated.")
    ] = _EPS,
    steps: Annotated[int, typer.Option(help="Number of iterations of pgd.")] = 10,
    eot: Annotated[
        int, typer.Option(help="Number of codes to average the gradient of a random coding over.")
    ] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the perturbations.")] = 0,
    device: Annotated[
        str | None,
        typer.Option(help="auto, cpu, cuda, cuda:1 or mps [default: the cell's device]"),
    ] = None,
    format: Annotated[str, typer.Option(help="table, json, csv, markdown or latex.")] = "table",
) -> None:
    """Measure how much accuracy cells keep under noise, lost spikes and attacks.

    The cells are those named, or the finished ones that the options select. Needs the weights that
    codingbench run keeps. Writes the table robustness into the results folder.

    Example: codingbench robustness --encoders gac,direct --attacks drop,pgd
    """
    from codingbench.runtime.openmp import prepare_torch

    prepare_torch()
    from codingbench.plugins.specs import split_list
    from codingbench.robustness.conditions import Plan, read_eps
    from codingbench.robustness.session import measure_cells
    from codingbench.store.folder import Store
    from codingbench.views.finished import chosen_cells
    from codingbench.views.robustness import check_format, present
    from codingbench.views.robustness_progress import RobustnessProgress

    check_format(format)
    names = tuple(ATTACKS) if attacks is None else tuple(split_list(attacks))
    plan = Plan(names, read_eps(eps), samples, steps, draws=eot, seed=seed)
    store = Store(results)
    keys = chosen_cells(store, cells or [], selection)
    with RobustnessProgress(len(keys), len(plan.conditions())) as progress:
        own = options.own_code(plugin, trust_code)
        measured = measure_cells(store, keys, plan, device, data_dir, progress, own)
    write(present(store, measured, format))
    if len(measured) < len(keys):
        sys.exit(1)
