"""``codingbench reproduce``."""

from typing import Annotated

import typer

from codingbench.cli import options
from codingbench.cli.options import OUTPUT, TRAINING, WHAT, option
from codingbench.cli.output import carry_out, write, write_plan


def reproduce(
    context: typer.Context,
    protocol: Annotated[str, typer.Argument(help="Name of the protocol: gac or max-resnet.")],
    dataset: Annotated[
        str | None,
        option(panel=WHAT, metavar="NAMES", default="the paper's", help="Data sets."),
    ] = None,
    T: Annotated[
        str | None,
        option("--T", panel=WHAT, metavar="INTS", default="the paper's", help="Time steps."),
    ] = None,
    backbones: Annotated[
        str | None,
        option(panel=WHAT, metavar="NAMES", default="the paper's", help="Networks."),
    ] = None,
    seeds: options.Seeds = None,
    recipe: Annotated[
        str | None,
        option(panel=TRAINING, metavar="NAMES", default="the paper's", help="Training recipes."),
    ] = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    precision: options.Precision = None,
    device: options.Device = None,
    devices: options.Devices = None,
    workers: options.Workers = None,
    threads: options.Threads = None,
    time_limit: options.TimeLimit = None,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    data_dir: options.DataDir = None,
    train_samples: options.TrainSamples = None,
    test_samples: options.TestSamples = None,
    results: options.Results = None,
    format: Annotated[
        str, option(panel=OUTPUT, metavar="NAME", default="table", help="table or json.")
    ] = "table",
) -> None:
    """Run a paper's protocol with its control arms, and print the gap to each published number.

    Options may make the run smaller; every departure from the paper is listed. Finished cells are
    not run again. The test accuracy of the best epoch, as many papers report it, stands beside
    those of the last epoch and of the epoch that validation selects.

    Example: codingbench reproduce gac --dataset cifar100 --T 2 --epochs 2 --train-samples 5000
    """
    from codingbench.cells.settings import parse_settings
    from codingbench.errors import SpecError, unknown
    from codingbench.executors.session import RunOptions, plan
    from codingbench.literature import reproduction
    from codingbench.runtime.openmp import prepare_torch
    from codingbench.store.learning import read_cells
    from codingbench.store.plausible import read
    from codingbench.views.reproduction import FORMATS

    prepare_torch()
    paper = reproduction.load_protocol(protocol)
    if format not in FORMATS:
        raise SpecError(unknown("format", format, FORMATS))
    settings = parse_settings(paper.settings | options.given(context))
    planned = plan(settings, RunOptions(tests_each_epoch=True, force=force))
    if dry_run:
        write_plan(planned)
        return
    result = carry_out(planned)
    if result.store.finished():
        cells = read_cells(result.store, result.keys)
        epoch_rows = read(result.store, "epochs", result.keys)
        points = reproduction.points(paper, planned.jobs, cells, epoch_rows)
        departures = reproduction.departures(paper, planned.jobs)
        write(FORMATS[format](paper, points, departures, reproduction.signs(cells)))
        if untested := reproduction.untested(cells, epoch_rows):
            typer.echo(
                f"best test epoch unknown: {len(untested)} of {len(cells)} cells were run without "
                "--test-each-epoch; --force runs them again",
                err=True,
            )
    if result.outcome.failed:
        raise typer.Exit(1)
