"""``codingbench reproduce``."""

from typing import TYPE_CHECKING, Annotated

import typer

from codingbench.cli import options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from codingbench.cells.run import RunConfig
    from codingbench.store.folder import Store


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
    from codingbench.cli.running import Manner, carry_out, plan, prepare_torch
    from codingbench.errors import SpecError, unknown
    from codingbench.literature import reproduction
    from codingbench.views.reproduction import FORMATS

    prepare_torch()
    paper = reproduction.load_protocol(protocol)
    if format not in FORMATS:
        raise SpecError(unknown("format", format, FORMATS))
    settings = paper.settings | options.given(context)
    if dry_run:
        plan(settings)
        return
    from codingbench.executors.config import ExecutorConfig

    def present(order: "RunConfig", store: "Store") -> "str | RenderableType":
        from codingbench.store.plausible import read

        jobs = order.jobs()
        cells = read(store, "cells", list(jobs))
        asked = list(jobs.values())
        return FORMATS[format](
            paper,
            reproduction.points(paper, asked, cells),
            reproduction.departures(paper, asked),
        )

    carry_out(settings, Manner(), ExecutorConfig(), present)
