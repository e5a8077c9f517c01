"""The cells of a grid run by seed, and within a seed the longest first."""

from pathlib import Path

from codingbench.cells.grid import Grid
from codingbench.cells.order import by_seed
from codingbench.executors.base import run_grid
from codingbench.executors.local import InProcess
from codingbench.store.folder import Store
from tests.grids import GRID, Recorder, config_of


def test_all_codings_and_networks_of_a_seed_come_before_the_next_seed() -> None:
    grid = Grid(
        encoders=("direct", "rate"),
        backbones=("csnn", "vgg9"),
        num_steps=(2, 4),
        seeds=(5, 0),
    )
    cells = [job.cell for job in by_seed(grid.expand())]
    assert [cell.seed for cell in cells] == [5] * 8 + [0] * 8
    assert [(cell.num_steps, cell.backbone, cell.encoder) for cell in cells[:8]] == [
        (4, "csnn", "direct"),
        (4, "csnn", "rate"),
        (4, "vgg9", "direct"),
        (4, "vgg9", "rate"),
        (2, "csnn", "direct"),
        (2, "csnn", "rate"),
        (2, "vgg9", "direct"),
        (2, "vgg9", "rate"),
    ]


def test_within_a_seed_the_most_images_times_steps_come_first() -> None:
    grid = Grid(encoders=("direct",), datasets=("mnist", "cifar10"), num_steps=(2, 1))
    cells = [job.cell for job in by_seed(grid.expand())]
    assert [(cell.dataset, cell.num_steps) for cell in cells] == [
        ("mnist", 2),
        ("cifar10", 2),
        ("mnist", 1),
        ("cifar10", 1),
    ]


def test_a_run_follows_the_order(tmp_path: Path) -> None:
    grid = Grid(**{**vars(GRID), "encoders": ("rate", "direct"), "seeds": (0, 1)})
    recorder = Recorder()
    run_grid(config_of(grid, tmp_path), InProcess(), recorder)
    assert recorder.started == ["rate", "direct", "rate", "direct"]
    cells = Store(tmp_path).read("cells").sort_values("started_at")
    assert cells["seed"].tolist() == [0, 0, 1, 1]
