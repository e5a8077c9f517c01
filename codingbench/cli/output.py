"""Output of commands: their results on stdout, the progress of a run on stderr."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import typer

from codingbench.runtime.paths import as_typed

if TYPE_CHECKING:
    from rich.console import RenderableType

    from codingbench.cells.grid import Cell
    from codingbench.executors.session import Plan, RunResult


def write(shown: "str | RenderableType") -> None:
    """Print to stdout: text as it is, tables as wide and coloured as the terminal allows."""
    if isinstance(shown, str):
        typer.echo(shown, nl=False)
    else:
        from rich.console import Console

        Console().print(shown)


def write_plan(planned: "Plan") -> None:
    """Print the cells that are left, and an estimate of their time."""
    from codingbench.cells.estimate import estimate_seconds
    from codingbench.runtime.devices import conditions
    from codingbench.runtime.formatting import duration
    from codingbench.views.plan import render_plan

    _warn(planned)
    left, seconds, workers = planned.remaining(), {}, 1
    if left:
        workers, threads = planned.pack()
        with _telling() as timing, conditions(threads, planned.is_deterministic):
            seconds = estimate_seconds(left, planned.device, timing)
    if planned.executor.name != "local":
        workers = 1  # how many cells a cluster runs at a time is not known
    finished = len(planned.jobs) - len(left)
    write(render_plan(left, seconds, planned.device, finished=finished, workers=workers))
    limit = planned.settings.time_limit_s
    ending = f", in runs of at most {duration(limit)}" if limit else ""
    write(as_typed(f"results in {planned.settings.results}{ending}\n"))


def _warn(planned: "Plan") -> None:
    for line in planned.warnings():
        typer.echo(line, err=True)


_SILENT_S: Final = 2.0  # an estimate that takes less says nothing where there is no terminal


@contextmanager
def _telling() -> Iterator[Callable[[int, int, "Cell"], None]]:
    """Yield a function that says which kind of cell is timed: in place, or a line for each."""
    from rich.console import Console
    from rich.text import Text

    console, started = Console(stderr=True, highlight=False), time.monotonic()

    def text(number: int, total: int, cell: "Cell") -> str:
        name = f"{cell.encoder} on {cell.backbone} at T={cell.num_steps}, {cell.dataset}"
        return f"timing training steps, {number} of {total}: {name}"

    def line(number: int, total: int, cell: "Cell") -> None:
        if time.monotonic() - started >= _SILENT_S:
            typer.echo(text(number, total, cell), err=True)

    if not console.is_terminal:
        yield line
        return
    with console.status("timing training steps") as status:
        yield lambda *timed: status.update(Text(text(*timed)))


def carry_out(planned: "Plan") -> "RunResult":
    """Run the planned cells with progress on stderr; a signal to stop ends the process."""
    from rich.console import Console

    from codingbench.runtime.interrupts import stop_on_signals
    from codingbench.training.loop import Interrupted
    from codingbench.views.progress import GridProgress

    _warn(planned)
    prepared = planned.prepare()
    total = len(prepared.jobs)
    progress = GridProgress(Console(stderr=True, highlight=False), total)
    with stop_on_signals() as stop:
        try:
            with progress:
                result = prepared.carry_out(progress, stop)
        except (KeyboardInterrupt, Interrupted):
            kept = f"{progress.done} of {total} cells are kept in {prepared.store.folder}"
            typer.echo(as_typed(f"interrupted: {kept}; the same command continues"), err=True)
            sys.exit(128 + (stop.signal or signal.SIGINT))
    if skipped := result.outcome.skipped:
        typer.echo(f"{skipped} finished before and not run again; --force runs them", err=True)
    if result.outcome.left:
        finished = total - result.outcome.left - result.outcome.failed
        typer.echo(
            f"time limit: {finished} of {total} cells are finished; the same command continues",
            err=True,
        )
    return result
