"""Forks processes that run a grid on a slow file system, and kills them. Run as a script.

Each line of the input is a request, ``{"results", "phase", "after_s"}``: fork a process that runs
``SHORT`` into the folder, and kill it ``after_s`` after it is first seen in the phase; without a
phase it runs to its end. Each line of the output is the answer, :class:`Landing` as JSON. Torch is
imported once, here, so that a process starts in milliseconds and a hundred can be killed in
minutes; nothing is computed before a fork, for it would start threads, which a fork does not copy.
"""

import io
import json
import mmap
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codingbench.cells import run as runner
from codingbench.cells.measure import measure
from codingbench.cells.network import network_of
from codingbench.executors.base import Outcome
from codingbench.store.folder import Store
from codingbench.training import checkpoint
from codingbench.training.checkpoint import Checkpoints
from codingbench.training.loop import _Run, train
from codingbench.training.schedule import make_optimizer

from .grids import SHORT, run_here

PHASES = ("other", "training", "checkpoint", "measuring", "weights", "commit")
_PAUSE_S = 0.004  # mean pause of a file operation; a commit has about forty
_PIECE = 16_384  # most bytes of one write
_POLL_S = 0.0005
_LONGEST_S = 300  # SIGALRM ends a process that hangs longer, and the test fails
_RENAMES, _RESUMED = 1, 2  # positions in the page, after the phase


@dataclass(frozen=True)
class Landing:
    """The phase and progress of a process when it was killed."""

    status: int  # exit status; negative for a signal
    phase: str
    renames: int  # renames in the current commit; 5 publish a cell
    resumed: int  # epoch of the checkpoint that it resumed from; 0: none


def serve() -> None:
    """Answer requests until the input ends."""
    warm_up()
    for line in sys.stdin:
        print(json.dumps(asdict(fork_and_kill(**json.loads(line)))), flush=True)


def warm_up() -> None:
    """Import what every cell needs late; torch's optimizers alone take seconds."""
    for job in SHORT.expand():
        make_optimizer(network_of(job), job.recipe)


def fork_and_kill(results: str, phase: str | None, after_s: float) -> Landing:
    """Fork one process, kill it in the phase, and return where it was."""
    page = mmap.mmap(-1, 16)  # shared with the child, so that it survives the child
    child = os.fork()
    if child == 0:
        work(Path(results), page)
    ended = wait_for(child, page, PHASES.index(phase)) if phase else None
    if phase and ended is None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)  # the child may have ended, but is not reaped yet
    status = os.waitpid(child, 0)[1] if ended is None else ended
    return Landing(
        os.waitstatus_to_exitcode(status), PHASES[page[0]], page[_RENAMES], page[_RESUMED]
    )


def wait_for(child: int, page: mmap.mmap, phase: int) -> int | None:
    """Wait until the child is in the phase; return its status if it ends before."""
    while page[0] != phase:
        reaped, status = os.waitpid(child, os.WNOHANG)
        if reaped:
            return status
        time.sleep(_POLL_S)
    return None


def work(results: Path, page: mmap.mmap) -> None:
    """Run the grid in a forked process; this function never returns."""
    try:
        os.close(0)
        signal.alarm(_LONGEST_S)
        write_phases(page)
        slow_down_files()
        checkpoint.__dict__["_COST"] = 1.0  # otherwise cells this short write no checkpoints
        Checkpoints.__init__.__defaults__ = (0.02,)
        outcome = run_here(SHORT, results)
        count = len(SHORT.expand())
        os._exit(0 if outcome == Outcome(outcome.done, count - outcome.done, 0) else 1)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def write_phases(page: mmap.mmap) -> None:
    """Write to the page which of the wrapped functions is running, the innermost if nested."""

    def marked(function: Callable[..., Any], phase: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            before = page[0]
            page[_RENAMES] = 0
            page[0] = PHASES.index(phase)
            try:
                return function(*args, **kwargs)
            finally:
                page[0] = before

        return call

    def counted(source: Any, target: Any) -> None:
        replace(source, target)
        page[_RENAMES] += 1

    def restore(self: _Run, state: dict[str, Any]) -> None:
        page[_RESUMED] = state["epoch"]
        restore_run(self, state)

    def save(self: Checkpoints, state: dict[str, Any]) -> None:
        is_periodic = self.folder.parent.name == "checkpoints"
        marked(save_checkpoint, "checkpoint" if is_periodic else "weights")(self, state)

    replace, restore_run, save_checkpoint = os.replace, _Run.restore, Checkpoints.save
    patches: list[tuple[Any, str, Any]] = [
        (os, "replace", counted),
        (_Run, "restore", restore),
        (Checkpoints, "save", save),
        (runner, "train", marked(train, "training")),
        (runner, "measure", marked(measure, "measuring")),
        (Store, "commit", marked(Store.commit, "commit")),
    ]
    for owner, name, patch in patches:
        setattr(owner, name, patch)


class SlowFile(io.FileIO):
    """A file that writes slowly, and only a part of the data at a time."""

    def write(self, data: Any) -> int:
        """Write fewer bytes than given, as a network file system may."""
        pause()
        return super().write(memoryview(data)[:_PIECE])


def slow_down_files() -> None:
    """Make every file operation of a commit take milliseconds, before and after it."""

    def slow(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            pause()
            try:
                return function(*args, **kwargs)
            finally:
                pause()

        return call

    def open_slow(path: Path, mode: str = "r", buffering: int = -1, **how: Any) -> Any:
        if (mode, buffering) == ("wb", 0):
            return SlowFile(path, "wb")
        return opened(path, mode, buffering, **how)

    opened = Path.open
    patches: list[tuple[Any, str, Any]] = [(Path, "open", open_slow)]
    patches += [(os, name, slow(getattr(os, name))) for name in ("fsync", "replace", "unlink")]
    for owner, name, patch in patches:
        setattr(owner, name, patch)


def pause() -> None:
    """Sleep for a few milliseconds."""
    time.sleep(random.uniform(0, 2 * _PAUSE_S))


if __name__ == "__main__":
    serve()
