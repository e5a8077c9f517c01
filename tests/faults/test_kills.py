"""``kill -9`` at random instants: in a training step, a checkpoint, the middle of a commit."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from codingbench.cells.reevaluation import differences
from codingbench.store.folder import Store
from codingbench.training.checkpoint import CHECKPOINTS, Checkpoints

from .fork_server import Landing
from .grids import (
    CODINGBENCH,
    SHORT,
    Tables,
    assert_complete,
    assert_sound,
    finish,
    run_here,
    start,
)

pytestmark = pytest.mark.thorough

MOST_FOLDERS = 200
LONGEST_S = {"commit": 0.4, "training": 0.8}
"""Longest delay of the kill: about a commit on the slow file system, and about two cells."""
LAST_EPOCH = SHORT.epochs or 0


class Server:
    """See :mod:`tests.faults.fork_server`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, results: Path, phase: str | None, after_s: float) -> Landing:
        """Run the grid, and kill it ``after_s`` after it was seen in the phase."""
        assert self.process.stdin and self.process.stdout
        request = {"results": str(results), "phase": phase, "after_s": after_s}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return Landing(**json.loads(self.process.stdout.readline()))


@contextmanager
def server() -> Iterator[Server]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.fork_server"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Server(process)


class Killings:
    """Kills of processes in commits, and as many elsewhere, in one folder after another.

    When a process completes its run in a folder, the next folder begins.
    """

    def __init__(self, folder: Path, whole: Tables, each: int) -> None:
        self.folder, self.whole, self.each = folder, whole, each
        self.killed: list[Landing] = []
        self.ended: list[Landing] = []

    @property
    def in_commits(self) -> int:
        return sum(landing.phase == "commit" for landing in self.killed)

    @property
    def elsewhere(self) -> int:
        return len(self.killed) - self.in_commits

    def go_on(self, servers: list[Server], draws: random.Random) -> None:
        """Continue until there are enough kills: processes run side by side on one folder, and
        each is killed and started again by itself."""
        for number in range(MOST_FOLDERS):
            folder = self.folder / str(number)
            seeds = [draws.random() for _ in servers]
            with ThreadPoolExecutor(len(servers)) as pool:
                list(pool.map(self._until_complete, servers, seeds, [folder] * len(servers)))
            assert_complete(folder, self.whole)
            for key in Store(folder).finished():
                assert differences(Store(folder), key, None) == []  # its weights match its rows
            verification = start([*CODINGBENCH, "verify", "--results", str(folder)])
            assert finish(verification)[0] == 0
            if min(self.in_commits, self.elsewhere) >= self.each:
                return
        raise AssertionError(f"only {self.counts()} in {MOST_FOLDERS} folders")

    def counts(self) -> str:
        """Return where the kills happened, for the test's output."""
        phases = Counter(landing.phase for landing in self.killed)
        renames = Counter(x.renames for x in self.killed if x.phase == "commit")
        resumed = Counter(x.resumed for x in [*self.killed, *self.ended] if x.resumed)
        return (
            f"{len(self.killed)} kills: {dict(phases.most_common())}; "
            f"by renames done in the commit: {dict(sorted(renames.items()))}; "
            f"processes by the epoch they last went on from: {dict(sorted(resumed.items()))}; "
            f"{len(self.ended)} processes came to their end"
        )

    def _until_complete(self, server: Server, seed: float, folder: Path) -> None:
        draws, finished = random.Random(seed), set[str]()
        while True:
            landing = server.ask(folder, *self._choose(draws))
            finished = assert_sound(folder, self.whole, finished)
            if landing.status == 0:
                self.ended.append(landing)
                return
            assert landing.status == -signal.SIGKILL
            self.killed.append(landing)

    def _choose(self, draws: random.Random) -> tuple[str | None, float]:
        """Choose a phase, and the time from its beginning to the kill."""
        wanted = {
            "commit": max(0, self.each - self.in_commits),
            "training": max(0, self.each - self.elsewhere),
        }
        if not any(wanted.values()):
            return None, 0.0
        (phase,) = draws.choices(list(wanted), list(wanted.values()))
        return phase, draws.uniform(0, LONGEST_S[phase])


def kill(folder: Path, whole: Tables, each: int, side_by_side: int) -> Killings:
    """Kill until there are so many kills in commits and so many elsewhere."""
    killings = Killings(folder, whole, each)
    with ExitStack() as stack:
        servers = [stack.enter_context(server()) for _ in range(side_by_side)]
        killings.go_on(servers, random.Random(0))
    print(killings.counts())
    return killings


def test_killed_at_random_instants_a_grid_loses_no_cell_and_has_no_half_one(
    tmp_path: Path, short: Tables
) -> None:
    killings = kill(tmp_path, short, each=4, side_by_side=1)
    assert killings.in_commits >= 4 and killings.elsewhere >= 4


def test_checkpoints_that_a_kill_just_after_a_commit_left_are_removed_by_the_next_run(
    tmp_path: Path, short: Tables
) -> None:
    run_here(SHORT, tmp_path)
    keys = sorted(Store(tmp_path).finished())
    for key in keys:
        Checkpoints(tmp_path / CHECKPOINTS, key).save({})
    with Store(tmp_path).claim(keys[0]):  # like a run with --force
        run_here(SHORT, tmp_path)
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()] == keys[:1]
    run_here(SHORT, tmp_path)
    assert_complete(tmp_path, short)


@pytest.mark.slow
@pytest.mark.parametrize("side_by_side", [1, 2])
def test_killed_a_hundred_times_a_grid_loses_no_cell_and_has_no_half_one(
    tmp_path: Path, short: Tables, side_by_side: int
) -> None:
    killings = kill(tmp_path, short, each=50, side_by_side=side_by_side)
    assert killings.in_commits >= 50 and killings.elsewhere >= 50
    half_published = [x for x in killings.killed if x.phase == "commit" and 0 < x.renames < 5]
    assert len(half_published) >= 5  # enough kills hit what they were aimed at
    assert any(0 < x.resumed < LAST_EPOCH for x in [*killings.killed, *killings.ended])
