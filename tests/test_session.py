"""Planning, preparing and carrying out a run from Python."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from codingbench.cells.data import DataCache, check_classes
from codingbench.cells.grid import Grid, Job
from codingbench.cells.settings import RunSettings, parse_settings
from codingbench.errors import SpecError
from codingbench.executors.base import Outcome
from codingbench.executors.session import Plan, RunOptions, plan
from codingbench.store.folder import Store
from tests.grids import GRID, Recorder


@pytest.fixture
def expansions(monkeypatch: pytest.MonkeyPatch) -> list[Grid]:
    """Every grid that is expanded in this process."""
    expanded: list[Grid] = []
    expand = Grid.expand

    def spy(self: Grid) -> list[Job]:
        expanded.append(self)
        return expand(self)

    monkeypatch.setattr(Grid, "expand", spy)
    return expanded


def planned(folder: Path, encoders: tuple[str, ...], force: bool = False) -> Plan:
    grid = Grid(**{**vars(GRID), "encoders": encoders})
    settings = RunSettings(grid=grid, results=folder, workers=1, device="cpu")
    return plan(settings, RunOptions(force=force))


def test_a_run_in_this_process_expands_its_grid_exactly_once(
    tmp_path: Path, expansions: list[Grid]
) -> None:
    result = planned(tmp_path, ("rate", "direct")).prepare().carry_out(Recorder())
    assert result.outcome == Outcome(done=2, skipped=0, failed=0)
    assert len(expansions) == 1


def test_a_result_names_the_cells_of_its_grid_and_not_the_others_of_the_store(
    tmp_path: Path,
) -> None:
    planned(tmp_path, ("rate",)).prepare().carry_out(Recorder())
    result = planned(tmp_path, ("direct", "rate")).prepare().carry_out(Recorder())
    assert [job.cell.encoder for job in result.jobs.values()] == ["direct", "rate"]
    assert set(result.keys) == result.store.finished()
    assert result.outcome == Outcome(done=1, skipped=1, failed=0)
    fewer = planned(tmp_path, ("direct",)).prepare().carry_out(Recorder())
    assert len(fewer.keys) == 1 and len(fewer.store.finished()) == 2


def test_a_plan_knows_what_remains_and_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    before = planned(folder, ("rate", "direct"))
    assert before.remaining() == before.jobs and not folder.exists()
    planned(folder, ("rate",)).prepare().carry_out(Recorder())
    assert [job.cell.encoder for job in before.remaining()] == ["direct"]


def test_options_reach_the_cells(tmp_path: Path) -> None:
    settings = parse_settings(
        {"encoders": "direct", "backbones": "csnn[width=4]", "T": 2, "epochs": 1,
         "train_samples": 40, "test_samples": 20, "results": str(tmp_path), "threads": 1}
    )  # fmt: skip
    options = RunOptions(names_host=False, keeps_weights=False, is_deterministic=False)
    plan(settings, options).prepare().carry_out(Recorder())
    row = Store(tmp_path).read_table("cells").to_pylist()[0]
    assert (row["host"], row["deterministic"], row["threads"]) == (None, False, 1)
    assert not (tmp_path / "weights").exists()


def test_a_wrong_name_is_refused_by_the_plan(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="did you mean 'direct'"):
        planned(tmp_path, ("direkt",))
    with pytest.raises(SpecError, match="unknown device 'cup'"):
        plan(RunSettings(grid=GRID, device="cup"))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (
            {"train_samples": 5},
            "train-samples: 5 images without those for validation are 4, expected one of each of "
            "the 10 classes of fashion_mini or more",
        ),
        (
            {"train_samples": 10},
            "train-samples: 10 images without those for validation are 9, expected one of each of "
            "the 10 classes of fashion_mini or more",
        ),
        (
            {"test_samples": 9},
            "test-samples: 9 images, expected one of each of the 10 classes of fashion_mini or "
            "more",
        ),
    ],
)
def test_too_few_images_for_all_classes_are_refused(
    tmp_path: Path, bounds: dict[str, int], message: str
) -> None:
    grid = replace(Grid(), **bounds)  # type: ignore[arg-type]
    with pytest.raises(SpecError) as caught:
        plan(RunSettings(grid=grid, results=tmp_path, workers=1, device="cpu"))
    assert str(caught.value) == message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("train_samples", range(11, 40))
def test_every_number_of_images_that_is_accepted_trains_all_classes(train_samples: int) -> None:
    job, *_ = jobs = Grid(train_samples=train_samples, test_samples=10).expand()
    check_classes(jobs)
    data = DataCache(jobs, None, torch.device("cpu"), None, threads=1).load(job)
    for split in (data.train, data.test):
        counts = split.labels.bincount(minlength=10)
        assert counts.min() >= 1 and counts.max() - counts.min() <= 1
