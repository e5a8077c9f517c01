"""``codingbench reproduce``."""

from typing import Annotated

import typer

from codingbench.cli import options
from codingbench.cli.output import carry_out, write, write_plan


def reproduce(
    context: typer.Context,
    protocol: Annotated[str, typer.Argument(help="Whose: gac.")],
    dataset: Annotated[str | None, typer.Option(help="Instead of the paper's.")] = None,
    T: Annotated[str | None, typer.Option("--T", help="Instead of the paper's.")] = None,
    backbones: Annotated[str | None, typer.Option(help="Instead of the paper's.")] = None,
    seeds: Annotated[str | None, typer.Option(help="How many, or a list [default: 1].")] = None,
    recipe: Annotated[str | None, typer.Option(help="Instead of the paper's.")] = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    train_samples: options.TrainSamples = None,
    test_samples: options.TestSamples = None,
    precision: options.Precision = None,
    data_dir: options.DataDir = None,
    results: options.Results = None,
    device: options.Device = None,
    devices: options.Devices = None,
    workers: options.Workers = None,
    dry_run: options.DryRun = False,
    format: Annotated[str, typer.Option(help="table or json.")] = "table",
) -> None:
    """Run a paper's protocol, with its control arms, and print the gap to each published number.

    Flags bound it; all that is then not as in the paper is listed. Finished cells are kept.

    Example: codingbench reproduce gac --dataset cifar100 --T 2 --epochs 2 --train-samples 5000
    """
    from codingbench.cells.settings import parse_settings
    from codingbench.errors import SpecError, unknown
    from codingbench.executors.session import plan
    from codingbench.literature import reproduction
    from codingbench.runtime.openmp import prepare_torch
    from codingbench.store.plausible import read
    from codingbench.views.reproduction import FORMATS

    prepare_torch()
    paper = reproduction.load_protocol(protocol)
    if format not in FORMATS:
        raise SpecError(unknown("format", format, FORMATS))
    planned = plan(parse_settings(paper.settings | options.given(context)))
    if dry_run:
        write_plan(planned)
        return
    result = carry_out(planned)
    if result.store.finished():
        cells = read(result.store, "cells", result.keys)
        points = reproduction.points(paper, planned.jobs, cells)
        write(FORMATS[format](paper, points, reproduction.departures(paper, planned.jobs)))
    if result.outcome.failed:
        raise typer.Exit(1)
