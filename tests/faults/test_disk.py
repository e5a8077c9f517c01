"""Disks that are full or read-only, and clocks that go back."""

import datetime
import os
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from codingbench.analysis.leaderboard import rows
from codingbench.cells import run as runner
from codingbench.cells.grid import Grid
from codingbench.errors import StoreError
from codingbench.executors.base import Outcome, run_grid
from codingbench.executors.local import InProcess
from codingbench.store.folder import Store
from codingbench.store.verification import leftovers
from tests.grids import config_of

from .grids import (
    CODINGBENCH,
    SHORT,
    SilentListener,
    Tables,
    assert_complete,
    assert_sound,
    command,
    done_cells,
    finish,
    run_here,
    start,
)

pytestmark = pytest.mark.thorough

ONE = Grid(**{**vars(SHORT), "encoders": ("rate",), "seeds": (0,)})
KIB = 1024


def mount(*arguments: str) -> None:
    """Mount a file system, or skip the test."""
    with suppress(FileNotFoundError):
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
        if done.returncode == 0:
            return
    pytest.skip("only who may mount a tmpfs can have a small disk")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, left_kib: int) -> None:
    """Fill the disk except for ``left_kib``."""
    about = os.statvfs(disk)
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, about.f_bavail * about.f_frsize - left_kib * KIB)


def one_refusal(process: "subprocess.Popen[str]") -> str:
    """Return the error line of a run that must end with status 2."""
    status, messages = finish(process)
    (error,) = [line for line in messages if not line.startswith("[")]
    assert status == 2 and error.startswith("error: ")
    return error


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_ends_the_run_in_one_line_and_with_space_the_same_command_goes_on(
    disk: Path, short: Tables, workers: str
) -> None:
    results = disk / "results"
    run_here(ONE, results)
    kept = Store(results).finished()
    fill(disk, left_kib=60)
    line = command(SHORT, results, "--workers", workers)
    error = one_refusal(start(line))
    assert str(results) in error and error.endswith("No space left on device")
    before = assert_sound(results, short, kept)
    assert 1 <= len(before) < 4
    (disk / "filler").unlink()
    status, messages = finish(start(line))
    assert status == 0 and len(done_cells(messages)) == 4 - len(before)
    assert_complete(results, short)


@pytest.mark.slow
def test_whatever_room_is_left_a_full_disk_costs_no_finished_cell(
    disk: Path, short: Tables
) -> None:
    results, kept, refused = disk / "results", disk / "kept", set[str]()
    run_here(ONE, kept)
    (before,) = Store(kept).finished()
    for left_kib in range(0, 400, 40):
        shutil.copytree(kept, results)
        fill(disk, left_kib)
        with pytest.raises(
            StoreError, match=r"^cannot write [^\n]*: No space left on device$"
        ) as no:
            run_here(SHORT, results)
        (folder,) = re.findall(f"'{results}(.*)'", str(no.value))
        refused.add(folder[: folder.rfind("/")])
        assert_sound(results, short, {before})
        assert leftovers(Store(results)) == []
        (disk / "filler").unlink()
        if left_kib % 80 == 0:  # enough is known without running the others
            run_here(SHORT, results)
            assert_complete(results, short)
        shutil.rmtree(results)
    assert refused == {"/checkpoints", "/weights", ""}  # the last one was in the middle of a commit


def test_a_limit_of_the_size_of_files_ends_the_run_in_one_line(
    tmp_path: Path, short: Tables
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 * KIB, 100 * KIB))

    error = one_refusal(start(command(SHORT, tmp_path), preexec_fn=limit))
    assert error.startswith(f"error: cannot write checkpoints or weights in '{tmp_path}")
    assert error.endswith(": File too large")
    assert assert_sound(tmp_path, short) == set()
    run_here(SHORT, tmp_path)
    assert_complete(tmp_path, short)


@pytest.fixture
def sealed(request: pytest.FixtureRequest, tmp_path: Path, short: Tables) -> Iterator[Path]:
    """A read-only file system with the results of ``ONE``: root ignores permissions."""
    if os.geteuid() == 0:
        results = request.getfixturevalue("disk") / "results"
        run_here(ONE, results)
        mount("-o", "remount,ro", str(results.parent))
        yield results
        return
    results = tmp_path / "results"
    run_here(ONE, results)
    folders = [results, *(path for path in results.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield results
    for folder in folders:
        folder.chmod(0o755)


def test_a_folder_that_cannot_be_written_is_refused_before_any_training_and_can_be_read(
    sealed: Path, short: Tables
) -> None:
    run = start(command(SHORT, sealed))
    assert run.stderr
    error = run.stderr.readline().rstrip()
    assert re.fullmatch(
        f"error: cannot write the results folder '{sealed}': "
        "(Read-only file system|Permission denied)",
        error,
    )
    assert finish(run) == (2, [])
    assert len(assert_sound(sealed, short)) == 1
    shown = start([*CODINGBENCH, "leaderboard", "--results", str(sealed)])
    assert finish(shown)[0] == 0


class GoingBack(datetime.datetime):
    """A clock that is a day earlier each time it is read."""

    shown = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Self:
        """Return a time one day before the last one."""
        GoingBack.shown -= datetime.timedelta(days=1)
        return cls.fromtimestamp(GoingBack.shown.timestamp(), tz)


def test_a_clock_that_goes_back_changes_no_number_and_no_result_is_taken_for_older(
    tmp_path: Path, short: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(ONE, tmp_path)
    before = Store(tmp_path).read("cells")
    monkeypatch.setattr(runner, "datetime", GoingBack)
    monkeypatch.setattr(time, "time", lambda: GoingBack.now().timestamp())
    assert run_grid(
        replace(config_of(SHORT, tmp_path), force=True), InProcess(), SilentListener()
    ) == Outcome(done=4, skipped=0, failed=0)
    assert_complete(tmp_path, short)
    cells = Store(tmp_path).read("cells")
    assert (cells["finished_at"] < cells["started_at"]).all() and (cells["wall_s"] > 0).all()
    # The later run counts, although its time is earlier.
    again = cells.set_index("key").loc[before["key"][0]]
    assert again["finished_at"] < before["finished_at"][0]
    table = rows(cells)
    assert table["seeds"].tolist() == [2, 2] and table["superseded"].tolist() == [0, 0]
