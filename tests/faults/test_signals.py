"""Signals to a running ``codingbench run``, from a scheduler, a person, and the kernel."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from codingbench.store.folder import Store
from codingbench.training.checkpoint import CHECKPOINTS, Checkpoints

from .grids import LONG, Tables, assert_complete, assert_sound, command, done_cells, finish, start

pytestmark = pytest.mark.thorough

EPOCHS = LONG.epochs or 0


def wait_for_epoch(run: subprocess.Popen[str], epoch: int) -> list[str]:
    """Return the lines written until a cell has completed the epoch."""
    assert run.stderr
    heard = []
    for line in run.stderr:
        heard.append(line.rstrip())
        if re.search(rf"\] +epoch {epoch}:", line):
            return heard
    raise AssertionError(heard)


def epochs_of(messages: list[str]) -> list[int]:
    """Return the epochs that a run reports as completed."""
    return [int(found[1]) for line in messages if (found := re.search(r"\] +epoch (\d+):", line))]


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_run_that_a_scheduler_ends_says_so_in_a_line_and_goes_on_where_it_was(
    tmp_path: Path, long: Tables, workers: str
) -> None:
    line = command(LONG, tmp_path, "--workers", workers)
    run = start(line)
    wait_for_epoch(run, 3)
    run.send_signal(signal.SIGTERM)
    status, messages = finish(run)
    assert status == 143
    said = f"interrupted: 0 of 2 cells are kept in {tmp_path}; the same command continues"
    assert messages[-1] == said and not re.search("Traceback|error", "".join(messages))
    reached = {}
    for folder in sorted((tmp_path / CHECKPOINTS).iterdir()):
        state = Checkpoints(tmp_path / CHECKPOINTS, folder.name).load()
        assert state
        reached[folder.name] = state["epoch"]
    assert 3 <= max(reached.values()) < EPOCHS  # the second worker may not have started
    status, messages = finish(start(line))
    assert status == 0 and len(done_cells(messages)) == 2
    assert len(epochs_of(messages)) == 2 * EPOCHS - sum(reached.values())
    assert_complete(tmp_path, long)


@pytest.mark.slow
def test_a_run_that_is_frozen_and_thawed_gives_the_same_numbers(
    tmp_path: Path, long: Tables
) -> None:
    run = start(command(LONG, tmp_path, "--workers", "2"))
    wait_for_epoch(run, 3)
    os.killpg(run.pid, signal.SIGSTOP)  # the workers have ended, too
    time.sleep(2)
    assert run.poll() is None and Store(tmp_path).finished() == set()
    os.killpg(run.pid, signal.SIGCONT)
    status, messages = finish(run)
    assert status == 0, messages
    assert_complete(tmp_path, long)


def members(session: int) -> list[int]:
    """Return the living processes of a session; dead ones may wait long for their parent."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, *_, its_session = process.joinpath("stat").read_text().rsplit(")")[1].split()[:4]
        except OSError:
            continue  # it has just ended
        if int(its_session) == session and state not in "ZX":
            found.append(int(process.name))
    return found


def wait_until(claim: Callable[[], bool], longest_s: float = 300) -> None:
    """Wait for a condition; fail if it takes too long."""
    end = time.monotonic() + longest_s
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to look for orphans in")
def test_workers_whose_parent_is_killed_end_by_themselves_and_lose_nothing(
    tmp_path: Path, long: Tables
) -> None:
    line = command(LONG, tmp_path, "--workers", "2")
    run = start(line)
    wait_for_epoch(run, 3)
    assert len(members(run.pid)) >= 3
    run.kill()
    wait_until(lambda: not members(run.pid))
    assert finish(run)[0] == -signal.SIGKILL
    finished = assert_sound(tmp_path, long)
    assert len(finished) < 2  # they did not simply run to the end
    status, messages = finish(start(line))
    assert status == 0 and len(done_cells(messages)) == 2 - len(finished)
    assert_complete(tmp_path, long)
