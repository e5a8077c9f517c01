"""The same command, twice at the same time, on one folder."""

from pathlib import Path

import pytest

from codingbench.cells.grid import Grid

from .grids import SHORT, assert_complete, command, done_cells, finish, start, undisturbed

pytestmark = pytest.mark.thorough

MEETING = Path(__file__).with_name("meeting.py")
GRID = Grid(**{**vars(SHORT), "encoders": (f"{MEETING}:Meeting", "rate", "gac")})


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_two_runs_at_once_train_every_cell_once_and_give_the_tables_of_one(
    tmp_path: Path, workers: str
) -> None:
    whole = undisturbed(GRID, tmp_path / "alone")
    (tmp_path / "met").mkdir()
    # Both are in their first cell at the same time: the first two cells wait for each other.
    met = {"CODINGBENCH_TEST_MEETING": f"2:{tmp_path / 'met'}"}
    line = command(GRID, tmp_path / "results", "--workers", workers)
    runs = [start(line, env=met) for _ in range(2)]
    ends = [finish(run) for run in runs]
    assert [status for status, _ in ends] == [0, 0], ends
    done = [done_cells(messages) for _, messages in ends]
    assert all(done)
    assert len(done[0] + done[1]) == len(set(done[0] + done[1])) == 6
    assert_complete(tmp_path / "results", whole)
    assert not list((tmp_path / "results" / ".locks").glob("[0-9a-f]*.lock"))
