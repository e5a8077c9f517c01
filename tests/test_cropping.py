"""Random resized crops: the choice of the part, and its pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Generator, Tensor
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop

from codingbench.datasets.crops import NUMBERS, Crops, boxes, crop_batch, draw_crops
from codingbench.datasets.images import Split
from codingbench.recipes.recipe import ResizedCrop, load_recipe
from tests.photos import photo, recipe_with_crops

INCEPTION = ResizedCrop(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
WHOLE = ResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0))


def draws(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def drawn(count: int, seed: int = 0, settings: ResizedCrop = INCEPTION) -> Crops:
    crops = draw_crops(settings, count, draws(seed))
    assert crops is not None
    return crops


def test_a_box_by_hand() -> None:
    numbers = np.zeros((1, NUMBERS), np.float32)
    # area 0.25, the middle of [0, 0.5]; shape 1, the middle of [1/2, 2] on a logarithmic scale
    numbers[0, 0], numbers[0, 10] = 0.5, 0.5
    numbers[0, -2:] = 0.5, 0.75
    settings = ResizedCrop(scale=(1e-9, 0.5), ratio=(0.5, 2.0))
    # 10x10 pixels of 20x20; top = floor(0.5 * 11), left = floor(0.75 * 11)
    assert boxes(numbers, 20, 20, settings).tolist() == [[5, 8, 10, 10]]


def test_the_first_try_that_fits_is_taken() -> None:
    numbers = np.zeros((1, NUMBERS), np.float32)
    # area 1 of a square fits only with shape 1, the third try
    numbers[0, :10], numbers[0, 10:20] = 0.9, 0.0
    numbers[0, 12] = 0.5
    settings = ResizedCrop(scale=(1.0, 1.0), ratio=(0.5, 2.0))
    assert boxes(numbers, 20, 20, settings).tolist() == [[0, 0, 20, 20]]


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(10, 40, [0, 13, 10, 13]), (40, 10, [13, 0, 13, 10]), (30, 30, [0, 0, 30, 30])],
)
def test_where_nothing_fits_the_largest_allowed_part_of_the_middle_is_taken(
    height: int, width: int, box: list[int]
) -> None:
    numbers = np.ones((1, NUMBERS), np.float32) * 0.999
    settings = ResizedCrop(scale=(1.0, 1.0), ratio=(3 / 4, 4 / 3))
    assert boxes(numbers, height, width, settings).tolist() == [box]


@pytest.mark.parametrize(("height", "width"), [(224, 224), (100, 300)])
def test_boxes_are_distributed_like_torchvisions(height: int, width: int) -> None:
    ours = drawn(3000).boxes(height, width)
    image = torch.empty(3, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        scale, ratio = list(INCEPTION.scale), list(INCEPTION.ratio)
        theirs = np.array([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(3000)])
    for column in range(4):
        # eight comparisons: by chance below 1e-4 in fewer than one of a thousand runs of the suite
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-4
    shares = [(found[:, 2] * found[:, 3]).mean() / (height * width) for found in (ours, theirs)]
    assert shares[0] == pytest.approx(shares[1], abs=0.03)


def test_boxes_lie_inside_images_of_any_shape() -> None:
    for height, width in ((1, 1), (2, 50), (37, 8), (64, 64)):
        top, left, h, w = drawn(500).boxes(height, width).T
        assert (h >= 1).all() and (w >= 1).all() and (top >= 0).all() and (left >= 0).all()
        assert (top + h <= height).all() and (left + w <= width).all()


def test_a_part_of_the_crops_is_that_of_their_places() -> None:
    crops = drawn(20)
    assert np.array_equal(crops.part(5, 9).boxes(32, 32), crops.boxes(32, 32)[5:9])
    assert crops.part(7).box(32, 32) == tuple(crops.boxes(32, 32)[7])


def images(count: int) -> Tensor:
    return torch.from_numpy(
        np.stack([np.asarray(photo(s, (28, 24))) for s in range(count)])
    ).movedim(3, 1)


def test_the_pixels_are_those_of_a_cut_brought_to_the_old_size() -> None:
    batch, crops = images(30), drawn(30)
    found = crop_batch(batch, crops)
    assert found.shape == batch.shape and found.dtype == torch.uint8
    for image, (top, left, h, w), ours in zip(batch, crops.boxes(24, 28), found, strict=True):
        cut = image[None, :, top : top + h, left : left + w].float()
        expected = F.interpolate(
            cut, (24, 28), mode="bilinear", align_corners=False, antialias=True
        )
        difference = (expected[0] - ours.float()).abs()
        assert difference.max() <= 0.51  # half a grey level, plus float32 rounding


def test_the_whole_image_as_its_part_changes_no_pixel() -> None:
    batch = images(4)[:, :, :24, :24]
    assert torch.equal(crop_batch(batch, drawn(4, settings=WHOLE)), batch)


def test_a_split_in_memory_crops_each_place_of_the_order_with_its_own_numbers() -> None:
    split, order = Split(images(12), torch.arange(12)), torch.randperm(12, generator=draws(3))
    crops = drawn(12)
    found = torch.cat([batch for batch, _ in split.batches(5, order, crops)])
    assert torch.equal(found, crop_batch(split.images[order], crops))
    rest = torch.cat([batch for batch, _ in split.batches(5, order[5:], crops.part(5))])
    assert torch.equal(rest, found[5:])


def test_a_recipe_may_have_the_section_and_those_that_lack_it_are_as_before(tmp_path: Path) -> None:
    recipe = load_recipe(str(recipe_with_crops(tmp_path / "crops.toml")))
    assert recipe.augment.resized_crop == ResizedCrop((0.08, 1.0), (0.75, 1.3333))
    quick = load_recipe("quick")
    assert quick.augment.resized_crop is None and quick.hash != recipe.hash
    assert draw_crops(quick.augment.resized_crop, 10, draws(0)) is None
