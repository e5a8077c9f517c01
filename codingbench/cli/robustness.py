"""``codingbench robustness``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli import options
from codingbench.cli.output import write


def robustness(
    cells: Annotated[
        list[str],
        typer.Argument(help="Keys of cells or their first 4 or more characters; or all."),
    ],
    results: options.ResultsFolder = Path("results"),
    data_dir: Annotated[Path | None, typer.Option(help="Where data sets are.")] = None,
    samples: Annotated[
        int, typer.Option(help="Test images at most, balanced over the classes.")
    ] = 500,
    attacks: Annotated[
        str | None,
        typer.Option(
            help="Only these: gaussian, signs, drop, jitter, fgsm, pgd, transfer [default: all]."
        ),
    ] = None,
    eps: Annotated[
        str, typer.Option(help="Largest changes of a pixel, in 1/255, comma-separated.")
    ] = "2,4,8",
    steps: Annotated[int, typer.Option(help="Of pgd.")] = 10,
    eot: Annotated[
        int, typer.Option(help="Codes that the gradient of a random coding is the mean over.")
    ] = 8,
    seed: Annotated[int, typer.Option(help="Of the perturbations.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps [default: the cell's].")
    ] = None,
    format: Annotated[str, typer.Option(help="table, json, csv or markdown.")] = "table",
) -> None:
    """Measure how much accuracy finished cells keep under noise, lost spikes and attacks.

    Needs the weights that codingbench run keeps; writes the table robustness beside the results.

    Example: codingbench robustness all --attacks gaussian,drop,pgd --eps 2,8
    """
    from codingbench.runtime.openmp import prepare_torch

    prepare_torch()
    from codingbench.plugins.specs import split_list
    from codingbench.robustness.conditions import ATTACKS, Plan, read_eps
    from codingbench.robustness.session import asked, measure_cells
    from codingbench.store.folder import Store
    from codingbench.views.robustness import check_format, present

    check_format(format)
    names = tuple(ATTACKS) if attacks is None else tuple(split_list(attacks))
    plan = Plan(names, read_eps(eps), samples, steps, eot, seed)
    store = Store(results)
    keys = asked(store, cells)
    measured = measure_cells(store, keys, plan, device, data_dir)
    write(present(store, measured, format))
    if len(measured) < len(keys):
        sys.exit(1)
