"""Batches of one image, on which batch normalisation may not be able to train."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from codingbench.cells.grid import Grid, Job
from codingbench.cells.network import check_smallest_batches
from codingbench.cli.main import app
from codingbench.errors import SpecError
from codingbench.registry import BACKBONES
from codingbench.training.splits import smallest_piece
from tests.photos import write_photos


@pytest.fixture
def small(tmp_path: Path) -> str:
    """Two classes of 12 photographs of 8x8 pixels."""
    return f"folder:{write_photos(tmp_path / 'small', classes='ab', train=12)}[size=8]"


def job(dataset: str, **asked: Any) -> Job:
    """22 of 24 images are trained on: with batches of 7, the last has one image."""
    defaults: dict[str, Any] = {"num_steps": (1,), "batch_size": 7, "encoders": ("direct",)}
    (found,) = Grid(datasets=(dataset,), **(defaults | asked)).expand()
    return found


def test_the_smallest_piece_by_hand() -> None:
    cases = {
        (22, 7, 7): 1, (22, 11, 11): 11, (22, 50, 50): 22, (22, 1, 1): 1, (21, 7, 3): 1,
        (22, 11, 5): 1, (22, 8, 8): 6, (22, 8, 5): 1, (20, 10, 4): 2,
    }  # fmt: skip
    for (images, batch, micro), least in cases.items():
        assert smallest_piece(images, batch, micro) == least


@pytest.mark.parametrize("backbone", ["csnn", "csnn[width=4]"])
def test_small_images_with_a_last_batch_of_one_are_refused_in_one_line(
    backbone: str, small: str
) -> None:
    with pytest.raises(SpecError) as caught:
        check_smallest_batches([job(small, backbones=(backbone,))])
    assert str(caught.value) == (
        f"direct on {backbone} at T=1: the last batch of an epoch has one image, and batch "
        "normalisation needs more than one value per channel; choose another batch size than 7, or "
        "another number of training images than 24"
    )


@pytest.mark.parametrize(
    "asked",
    [{"num_steps": (2,)}, {"batch_size": 11}, {"train_samples": 20}, {"batch_size": 22}],
)
def test_what_can_be_trained_is_not_refused(asked: dict[str, Any], small: str) -> None:
    check_smallest_batches([job(small, **asked)])


def test_the_rest_of_a_micro_batch_counts_too(small: str) -> None:
    check_smallest_batches([job(small, batch_size=11)])
    with pytest.raises(SpecError, match="has one image"):
        check_smallest_batches([job(small, batch_size=11, micro_batch=5)])


def test_every_backbone_is_refused_or_trains_on_its_smallest_images(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "small", classes="ab", train=12)
    for backbone in BACKBONES.names():
        for size in (8, 16, 32):
            asked = job(f"folder:{folder}[size={size}]", backbones=(backbone,))
            try:
                check_smallest_batches([asked])
            except (SpecError, ValueError) as error:
                assert re.search("one image|must be at least|at least", str(error)), backbone


def test_a_run_refuses_before_it_trains(small: str, tmp_path: Path) -> None:
    words = ["run", "--encoders", "direct", "--dataset", small, "--T", "1", "--batch-size", "7"]
    done = CliRunner().invoke(app, [*words, "--results", str(tmp_path / "r"), "--device", "cpu"])
    assert isinstance(done.exception, SpecError) and "has one image" in str(done.exception)
    assert not (tmp_path / "r").exists()
