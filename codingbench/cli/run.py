"""``codingbench run``."""

from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli import options


def run(
    context: typer.Context,
    encoders: Annotated[
        str | None,
        typer.Option(help="Codings: name[param=a|b], file.py:Class, package.module:Class."),
    ] = None,
    backbones: Annotated[str | None, typer.Option(help="Networks behind the coding.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data sets: codingbench data.")] = None,
    T: Annotated[str | None, typer.Option("--T", help="Time steps, e.g. 2,4,6.")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="How many, from seed 0 on; or a list: 3,5,8.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Training recipes, or file.toml.")] = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    micro_batch: Annotated[
        str | None,
        typer.Option(help="Images of one pass; gradients of a batch add up [default: the batch]."),
    ] = None,
    train_samples: options.TrainSamples = None,
    test_samples: options.TestSamples = None,
    precision: options.Precision = None,
    data_dir: options.DataDir = None,
    results: options.Results = None,
    device: options.Device = None,
    devices: options.Devices = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with these settings; flags win.")
    ] = None,
    dry_run: options.DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Run finished cells again.")] = False,
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compiled neurons: seconds first, then faster [default: where a run is long].",
        ),
    ] = None,
    graphs: Annotated[
        bool,
        typer.Option(
            "--graphs/--no-graphs",
            help="Replay training steps from CUDA graphs on a GPU; the results are the same.",
        ),
    ] = True,
    workers: options.Workers = None,
    threads: Annotated[
        str | None, typer.Option(help="CPU threads of each cell [default: cores / cells].")
    ] = None,
    decoders: Annotated[
        str | None,
        typer.Option(help="Processes of each cell that decode photographs; 0: its own."),
    ] = None,
    executor: Annotated[str, typer.Option(help="local, ray or slurm.")] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster [default: Ray on this machine].")
    ] = None,
    gpus: Annotated[float, typer.Option(help="GPUs of each cell on Ray; 0.5 shares.", min=0)] = 0.0,
    slurm: Annotated[
        str, typer.Option(help="Parameters of the jobs: slurm_partition=gpu,slurm_mem=16GB.")
    ] = "",
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that a cell may take; then it has failed.", min=1)
    ] = None,
    retries: Annotated[
        int | None,
        typer.Option(
            help="Further tries of a cell whose process died [default: 0; on Ray 3].", min=0
        ),
    ] = None,
    deterministic: Annotated[
        bool | None,
        typer.Option(
            "--deterministic/--no-deterministic",
            help="Only algorithms that repeat themselves [default: on a CPU].",
        ),
    ] = None,
    host: Annotated[
        bool, typer.Option("--host/--no-host", help="Keep a hash of the machine's name.")
    ] = True,
    weights: Annotated[
        bool, typer.Option("--weights/--no-weights", help="Keep the weights of finished cells.")
    ] = True,
) -> None:
    """Train and measure every cell of a grid, keep the results, print the leaderboard.

    Without options: direct, rate, latency and gac on the data set inside the package. Lists are
    comma-separated. Finished cells are not run again.

    Example: codingbench run --encoders "gac,latency[scale=log]" --dataset cifar100 --T 2,4,6
    """
    from codingbench.cells.settings import read_config
    from codingbench.cli.running import Manner, carry_out, plan, prepare_torch

    prepare_torch()
    settings = read_config(config) | options.given(context)
    if dry_run:
        plan(settings)
        return
    from codingbench.executors.config import ExecutorConfig

    neurons = {None: "auto", True: "compiled", False: "eager"}[compile]
    choice = ExecutorConfig(executor, timeout, retries, ray_address, gpus, _pairs(slurm))
    carry_out(settings, Manner(neurons, deterministic, host, weights, force, graphs), choice)


def _pairs(text: str) -> dict[str, str]:
    """``a=1,b=2`` as what it says."""
    from codingbench.errors import SpecError

    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    for name, equals, value in pairs:
        if not (name.strip() and equals and value.strip()):
            raise SpecError(f"--slurm expects name=value,..., got {text!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}
