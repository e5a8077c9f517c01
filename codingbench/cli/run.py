"""``codingbench run``."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

    from codingbench.grid import Job
    from codingbench.store import Store


def run(
    encoders: Annotated[
        str | None, typer.Option(help="Codings: name[param=value], or file.py:Class.")
    ] = None,
    backbones: Annotated[str | None, typer.Option(help="Networks behind the coding.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data sets: codingbench data.")] = None,
    T: Annotated[str | None, typer.Option("--T", help="Time steps, e.g. 2,4,6.")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="How many, from seed 0 on; or a list: 3,5,8.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Training recipes, or file.toml.")] = None,
    epochs: Annotated[str | None, typer.Option(help="Instead of the recipe's.")] = None,
    batch_size: Annotated[str | None, typer.Option(help="Instead of the recipe's.")] = None,
    train_samples: Annotated[
        str | None, typer.Option(help="Train on so many images, balanced over the classes.")
    ] = None,
    test_samples: Annotated[str | None, typer.Option(help="Test on so many images.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Where data sets are.")] = None,
    results: Annotated[str | None, typer.Option(help="Results folder [default: results].")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with these settings; flags win.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cells and an estimate of their time.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Run finished cells again.")] = False,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile the neurons (CPU, C++ compiler): seconds first, then faster."
        ),
    ] = False,
) -> None:
    """Train and measure every cell of a grid, keep the results, print the leaderboard.

    Without options: direct, rate, latency and gac on the data set inside the package. Lists are
    comma-separated. Finished cells are not run again.

    Example: codingbench run --encoders "gac,latency[scale=log]" --dataset cifar100 --T 2,4,6
    """
    flags = {
        "encoders": encoders,
        "backbones": backbones,
        "dataset": dataset,
        "T": T,
        "seeds": seeds,
        "recipe": recipe,
        "epochs": epochs,
        "batch_size": batch_size,
        "train_samples": train_samples,
        "test_samples": test_samples,
        "precision": precision,
        "data_dir": data_dir,
        "results": results,
        "device": device,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    _run(given, config, dry_run, force, "compiled" if compile else "eager")


def _run(
    flags: dict[str, Any], config: Path | None, dry_run: bool, force: bool, backend: str
) -> None:
    # Read when torch loads OpenMP: by default its threads spin at barriers so long that two runs
    # on one machine take most of each other's time. Set it yourself to compare.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    from codingbench.config import make_grid, read_config, text_setting
    from codingbench.store import DEFAULT_FOLDER, Store

    settings = read_config(config) | flags
    grid = make_grid(settings)
    jobs = grid.expand()
    from codingbench.hardware import resolve_device
    from codingbench.runner import check_plugins

    device = resolve_device(text_setting(settings, "device", "auto"))
    check_plugins(jobs)
    if dry_run:
        _print_plan(jobs, device)
        return
    store = Store(Path(text_setting(settings, "results", str(DEFAULT_FOLDER))))
    store.check_writable()
    from codingbench.lif_backends import use_backend

    with use_backend(backend):
        _train(jobs, grid.data_dir, store, device, force)


def _print_plan(jobs: "list[Job]", device: "torch.device") -> None:
    from codingbench.cli.output import write
    from codingbench.estimate import estimate_seconds, render_plan

    write(render_plan(jobs, estimate_seconds(jobs, device), device))


def _train(
    jobs: "list[Job]",
    data_dir: Path | None,
    store: "Store",
    device: "torch.device",
    force: bool,
) -> None:
    from rich.console import Console

    from codingbench.cli.output import write
    from codingbench.leaderboard_formats import present
    from codingbench.progress import GridProgress
    from codingbench.runner import find_sources, run_grid

    console = Console(stderr=True, highlight=False)
    sources = find_sources(jobs, data_dir)
    progress = GridProgress(console, len(jobs))
    try:
        with progress:
            outcome = run_grid(jobs, sources, store, device, progress, force)
    except KeyboardInterrupt:
        kept = f"{progress.done} of {len(jobs)} cells are kept in {store.folder}"
        typer.echo(f"interrupted: {kept}; the same command goes on", err=True)
        sys.exit(130)
    if outcome.skipped:
        typer.echo(f"{outcome.skipped} finished before and not run again (--force does)", err=True)
    if store.finished():
        write(present(store, "exact", "accuracy", None, "table"))
    if outcome.failed:
        sys.exit(1)
