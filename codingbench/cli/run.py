"""``codingbench run``."""

from pathlib import Path
from typing import Annotated

import typer

from codingbench.cli import options
from codingbench.cli.options import DATA, OUTPUT, TRAINING, WHAT, WHERE, number, option, whole
from codingbench.cli.output import carry_out, write, write_plan
from codingbench.runtime.paths import user_path


def run(
    context: typer.Context,
    encoders: Annotated[
        str | None,
        option(
            panel=WHAT,
            metavar="NAMES",
            default="direct,rate,latency,gac",
            help="Codings: name[param=a|b], file.py:Class or package.module:Class.",
        ),
    ] = None,
    backbones: options.Backbones = None,
    neurons: Annotated[
        str | None,
        option(
            panel=WHAT,
            metavar="NAMES",
            default="default: each network's own",
            help="Neurons of the network and the coding, such as lif[beta=0.9].",
        ),
    ] = None,
    dataset: options.Dataset = None,
    T: options.NumSteps = None,
    seeds: options.Seeds = None,
    config: Annotated[
        Path | None,
        option(
            panel=WHAT,
            metavar="PATH",
            parser=user_path,
            help="TOML file with these settings; options override it.",
        ),
    ] = None,
    recipe: options.Recipe = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    micro_batch: Annotated[
        int | None,
        whole(
            "--micro-batch",
            panel=TRAINING,
            default="the batch size",
            help="Images of a forward pass; the gradients of a batch are added up.",
        ),
    ] = None,
    precision: options.Precision = None,
    compile: Annotated[
        bool | None,
        option(
            "--compile/--no-compile",
            panel=TRAINING,
            default="if worthwhile",
            help="Compile the neurons: takes seconds at first, then trains faster.",
        ),
    ] = None,
    graphs: Annotated[
        bool,
        option(
            "--graphs/--no-graphs",
            panel=TRAINING,
            default="graphs",
            help="Replay training steps from CUDA graphs on a GPU; the results are the same.",
        ),
    ] = True,
    test_each_epoch: Annotated[
        bool,
        option(
            "--test-each-epoch",
            panel=TRAINING,
            help="Measure the test accuracy after every epoch; it selects and ranks nothing.",
        ),
    ] = False,
    deterministic: Annotated[
        bool | None,
        option(
            "--deterministic/--no-deterministic",
            panel=TRAINING,
            default="on a CPU",
            help="Use only deterministic algorithms.",
        ),
    ] = None,
    device: options.Device = None,
    devices: options.Devices = None,
    workers: options.Workers = None,
    threads: options.Threads = None,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    executor: Annotated[
        str, option(panel=WHERE, metavar="NAME", default="local", help="local, ray or slurm.")
    ] = "local",
    time_limit: options.TimeLimit = None,
    timeout: Annotated[
        float | None,
        number(
            "--timeout",
            panel=WHERE,
            least=1,
            default="no limit",
            help="Seconds after which a cell has failed.",
        ),
    ] = None,
    retries: Annotated[
        int | None,
        whole(
            "--retries",
            panel=WHERE,
            least=0,
            default="0; 3 on Ray",
            help="How often a cell is tried again whose process died.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        option(
            panel=WHERE,
            metavar="TEXT",
            default="Ray on this machine",
            help="Address of a Ray cluster.",
        ),
    ] = None,
    gpus: Annotated[
        float,
        number(
            "--gpus",
            panel=WHERE,
            default="1 if --device is a GPU",
            help="GPUs of each cell on Ray; with 0.5, two cells share one.",
        ),
    ] = 0.0,
    slurm: Annotated[
        str,
        option(
            panel=WHERE,
            metavar="TEXT",
            help="Parameters of SLURM jobs: slurm_partition=gpu,slurm_mem=16GB.",
        ),
    ] = "",
    data_dir: options.DataDir = None,
    train_samples: options.TrainSamples = None,
    test_samples: options.TestSamples = None,
    decoders: Annotated[
        int | None,
        whole(
            "--decoders",
            panel=DATA,
            least=0,
            default="1; on a GPU, --threads",
            help="Processes of each cell that decode photographs; 0: the cell itself.",
        ),
    ] = None,
    results: options.Results = None,
    weights: Annotated[
        bool,
        option(
            "--weights/--no-weights",
            panel=OUTPUT,
            default="keep",
            help="Keep the weights of finished cells.",
        ),
    ] = True,
    log: Annotated[
        str | None,
        option(
            panel=OUTPUT,
            metavar="NAMES",
            default="none",
            help="Logs of every epoch in the results folder: csv, tensorboard.",
        ),
    ] = None,
    host: Annotated[
        bool,
        option(
            "--host/--no-host",
            panel=OUTPUT,
            default="keep",
            help="Keep a hash of the machine's name in the results.",
        ),
    ] = True,
) -> None:
    """Train and measure every cell of a grid, keep the results, print the leaderboard.

    Without options, the codings direct, rate, latency and gac are trained on the data set inside
    the package. Lists are comma-separated. Finished cells are not run again.

    Example: codingbench run --encoders "gac,latency[scale=log]" --dataset cifar100 --T 2,4,6
    """
    from codingbench.cells.settings import parse_settings, read_config
    from codingbench.executors.config import ExecutorConfig, log_names
    from codingbench.executors.session import RunOptions, plan
    from codingbench.runtime.openmp import prepare_torch

    prepare_torch()
    settings = parse_settings(read_config(config) | options.given(context))
    run_options = RunOptions(
        neurons={None: "auto", True: "compiled", False: "eager"}[compile],
        is_deterministic=deterministic,
        names_host=host,
        keeps_weights=weights,
        force=force,
        graphs=graphs,
        tests_each_epoch=test_each_epoch,
        logs=log_names(log),
    )
    executor_config = ExecutorConfig(
        name=executor,
        timeout_s=timeout,
        retries=retries,
        ray_address=ray_address,
        gpus=gpus,
        slurm=_parse_pairs(slurm),
    )
    planned = plan(settings, run_options, executor_config)
    if dry_run:
        write_plan(planned)
        return
    result = carry_out(planned)
    from codingbench.views.leaderboard import present

    if result.store.finished():
        write(present(result.store))
    if result.outcome.failed:
        raise typer.Exit(1)


def _parse_pairs(text: str) -> dict[str, str]:
    """Parse ``a=1,b=2``."""
    from codingbench.errors import SpecError

    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    for name, equals, value in pairs:
        if not (name.strip() and equals and value.strip()):
            raise SpecError(f"--slurm expects name=value,..., got {text!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}
