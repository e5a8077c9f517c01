"""What ``codingbench run`` does with its settings."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import torch
    from rich.console import RenderableType

    from codingbench.cells.grid import Job
    from codingbench.cells.run import RunConfig
    from codingbench.executors.config import ExecutorConfig
    from codingbench.store.folder import Store


@dataclass(frozen=True)
class Manner:
    """How cells are run, apart from what they are."""

    neurons: str = "auto"
    is_deterministic: bool | None = None  # None: on a CPU
    names_host: bool = True
    keeps_weights: bool = True
    force: bool = False
    graphs: bool = True


def prepare_torch() -> None:
    """Before torch is imported, which reads this when it loads OpenMP: by default its threads spin
    at barriers so long that two runs on one machine take most of each other's time."""
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # set it yourself to compare


def plan(settings: dict[str, Any]) -> None:
    """Print the cells that are left, and an estimate of their time."""
    from codingbench.cells.estimate import estimate_seconds, render_plan
    from codingbench.cli.output import write

    jobs, device = _checked(settings)
    left = _left(jobs, settings)
    seconds = estimate_seconds(left, device) if left else {}
    write(render_plan(left, seconds, device, finished=len(jobs) - len(left)))


def _left(jobs: "list[Job]", settings: dict[str, Any]) -> "list[Job]":
    """The jobs that are not finished, as far as can be told without fetching data."""
    from codingbench.cells.settings import make_grid
    from codingbench.datasets import find

    finished = _store(settings).finished()
    if not finished:
        return jobs
    data_dir = make_grid(settings).data_dir
    names = {job.cell.dataset: job.info.address or job.cell.dataset for job in jobs}
    sources = {name: find(names[name], data_dir) for name in names}
    prints = {name: source.fingerprint() for name, source in sources.items() if source}
    there = [job for job in jobs if job.cell.dataset in prints]
    done = {job.cell for job in there if job.key(prints[job.cell.dataset]) in finished}
    return [job for job in jobs if job.cell not in done]


def _store(settings: dict[str, Any]) -> "Store":
    from codingbench.cells.settings import text_setting
    from codingbench.store.folder import DEFAULT_FOLDER, Store

    return Store(Path(text_setting(settings, "results", str(DEFAULT_FOLDER))))


def carry_out(
    settings: dict[str, Any],
    manner: Manner,
    choice: "ExecutorConfig",
    present: "Callable[[RunConfig, Store], str | RenderableType] | None" = None,
) -> None:
    """Run the grid and print what came of it: the leaderboard, or what ``present`` makes of it."""
    from codingbench.cells.run import RunConfig, find_sources
    from codingbench.cells.settings import count_setting, make_grid
    from codingbench.cli.output import write

    workers, threads, devices = (
        count_setting(settings, name) for name in ("workers", "threads", "devices")
    )
    decoders = count_setting(settings, "decoders", least=0)
    jobs, device = _checked(settings)
    workers, threads = choice.pack(jobs, device, workers, threads, devices or 1)
    store = _store(settings)
    store.check_writable()
    grid = make_grid(settings)
    is_repeatable = manner.is_deterministic
    order = RunConfig(
        grid=grid,
        results=store.folder.resolve(),
        device=str(device),
        fingerprints={k: s.fingerprint() for k, s in find_sources(jobs, grid.data_dir).items()},
        neurons=manner.neurons,
        threads=threads,
        decoders=decoders,
        devices=devices or 1,
        is_deterministic=device.type == "cpu" if is_repeatable is None else is_repeatable,
        names_host=manner.names_host,
        keeps_weights=manner.keeps_weights,
        force=manner.force,
        graphs=manner.graphs,
    )
    failed = _train(order, store, choice, workers)
    if store.finished():
        write((present or _leaderboard)(order, store))
    if failed:
        sys.exit(1)


def _leaderboard(order: "RunConfig", store: "Store") -> "str | RenderableType":
    from codingbench.views.writers import present

    return present(store, "exact", "accuracy", None, "table")


def _checked(settings: dict[str, Any]) -> "tuple[list[Job], torch.device]":
    from codingbench.cells.settings import make_grid, text_setting

    jobs = make_grid(settings).expand()
    from codingbench.cells.network import (
        check_plugins,  # these import torch: wrong names need not wait
    )
    from codingbench.runtime.devices import resolve_device

    device = resolve_device(text_setting(settings, "device", "auto"))
    check_plugins(jobs)
    return jobs, device


def _train(order: "RunConfig", store: "Store", choice: "ExecutorConfig", workers: int) -> int:
    """Run the cells; how many failed."""
    from rich.console import Console

    from codingbench.executors.base import run_grid
    from codingbench.runtime.interrupts import stop_on_signals
    from codingbench.training.loop import Interrupted
    from codingbench.views.progress import GridProgress

    total = len(order.jobs())
    progress = GridProgress(Console(stderr=True, highlight=False), total)
    with stop_on_signals() as stop:
        try:
            with progress:
                outcome = run_grid(order, choice.executor(workers), progress, stop)
        except (KeyboardInterrupt, Interrupted):
            kept = f"{progress.done} of {total} cells are kept in {store.folder}"
            typer.echo(f"interrupted: {kept}; the same command goes on", err=True)
            sys.exit(128 + (stop.signal or signal.SIGINT))
    if outcome.skipped:
        typer.echo(f"{outcome.skipped} finished before and not run again (--force does)", err=True)
    return outcome.failed
