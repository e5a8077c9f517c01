"""No process that a run started is left, whatever ended its cell or the run."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.photos import recipe_with_crops, write_photos

from .grids import SHORT, command, finish, start

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to look in"),
]

MEETING = Path(__file__).with_name("meeting.py")
SOON_S = 30.0
"""Most seconds until everything has ended: ten for a worker, and its time on a busy machine."""


def members(session: int) -> dict[int, str]:
    """Return the commands of the living processes of a session, by process."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, *_, its_session = process.joinpath("stat").read_text().rsplit(")")[1].split()[:4]
            line = process.joinpath("cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it has just ended
        if int(its_session) == session and state not in "ZX":
            found[int(process.name)] = line
    return found


def wait_until(claim: Callable[[], object], longest_s: float) -> None:
    end = time.monotonic() + longest_s
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.1)


def decoders(session: int) -> int:
    """Return the number of decoders, if each fork server has one."""
    return sum("forkserver" in line for line in members(session).values()) // 2


@pytest.fixture
def photographs(tmp_path: Path) -> list[str]:
    """Write photographs that are streamed; return the options for a long training on them."""
    root = write_photos(tmp_path / "toys", train=20, val=10)
    recipe = recipe_with_crops(tmp_path / "crops.toml")
    options = {"dataset": f"folder:{root}[size=16]", "recipe": str(recipe), "epochs": "1000"}
    return [text for name, value in options.items() for text in (f"--{name}", value)]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_decoders_end_with_a_run_that_is_ended(
    tmp_path: Path, photographs: list[str], workers: int, number: int
) -> None:
    line = command(SHORT, tmp_path / "results", *photographs, "--decoders", "1")
    run = start([*line, "--workers", str(workers)])
    wait_until(lambda: decoders(run.pid) == workers, 120)
    run.send_signal(number)
    wait_until(lambda: not members(run.pid), SOON_S)
    assert finish(run)[0] == (143 if number == signal.SIGTERM else -number)


def test_decoders_end_with_a_cell_that_takes_too_long(
    tmp_path: Path, photographs: list[str]
) -> None:
    line = command(SHORT, tmp_path / "results", *photographs, "--seeds", "0,", "--decoders", "1")
    run = start([*line, "--workers", "2", "--timeout", "15"])
    status, messages = finish(run)
    wait_until(lambda: not members(run.pid), SOON_S)
    assert status == 1 and sum("took longer than 15 s" in line for line in messages) == 2


def test_a_worker_that_never_comes_back_from_a_batch_ends_with_a_killed_run(tmp_path: Path) -> None:
    (tmp_path / "met").mkdir()
    grid = type(SHORT)(**{**vars(SHORT), "encoders": (f"{MEETING}:Meeting",)})
    alone = {"CODINGBENCH_TEST_MEETING": f"99:{tmp_path / 'met'}"}  # each waits for ten minutes
    run = start(command(grid, tmp_path / "results", "--workers", "2"), env=alone)
    wait_until(lambda: len(os.listdir(tmp_path / "met")) == 2, 200)
    run.kill()
    wait_until(lambda: not members(run.pid), SOON_S)
    assert finish(run)[0] == -signal.SIGKILL
