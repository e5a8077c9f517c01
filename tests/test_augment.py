"""Augmentation of whole batches, compared with literal values and image-by-image references."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from codingbench.datasets.pixels import to_unit
from codingbench.recipes.recipe import Augment
from codingbench.training.augment import (
    Batch,
    alternating_flips,
    augment,
    cutmix,
    cutout,
    random_crop,
)

NOTHING = Augment(crop_padding=0, flip=False, cutmix_probability=0.0, cutmix_beta=1.0)
ALL = Augment(crop_padding=2, flip=True, cutmix_probability=0.5, cutmix_beta=1.0)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def photos(count: int, channels: int = 3, height: int = 6, width: int = 5) -> Tensor:
    shape = (count, channels, height, width)
    return torch.randint(1, 256, shape, generator=seeded(99), dtype=torch.uint8)


def test_without_any_setting_images_are_only_scaled() -> None:
    images, labels = torch.tensor([[[[0, 51], [255, 102]]]], dtype=torch.uint8), torch.tensor([3])
    batch = augment(images, labels, NOTHING, seeded())
    torch.testing.assert_close(batch.images, torch.tensor([[[[0.0, 0.2], [1.0, 0.4]]]]))
    assert batch.images.dtype == torch.float32
    assert batch.labels is labels
    assert (batch.other_labels, batch.share) == (None, 1.0)


def test_the_given_images_are_not_changed() -> None:
    images = photos(8)
    before = images.clone()
    for settings in (ALL, _only(cutout=3), _only(crop_padding=2, crop_fill="reflect")):
        for seed in range(4):
            augment(images, torch.arange(8), settings, seeded(seed))
    assert torch.equal(images, before)


def test_a_crop_without_padding_is_the_image() -> None:
    images = photos(3)
    assert torch.equal(random_crop(images, 0, seeded()), images)


def test_every_crop_is_a_window_of_the_padded_image_and_every_window_is_cut() -> None:
    padding, height, width = 2, 6, 5
    images = photos(400, height=height, width=width)
    crops = random_crop(images, padding, seeded())
    assert (crops.dtype, crops.shape) == (torch.uint8, images.shape)
    places = set()
    for image, crop in zip(images, crops, strict=True):
        padded = torch.zeros(3, height + 2 * padding, width + 2 * padding, dtype=torch.uint8)
        padded[:, padding : padding + height, padding : padding + width] = image
        found = {
            (top, left)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            if torch.equal(padded[:, top : top + height, left : left + width], crop)
        }
        assert len(found) == 1
        places |= found
    assert len(places) == 25  # 400 draws miss a given window with probability (24/25)^400 = 8e-8


def test_an_image_is_mirrored_left_to_right_or_unchanged() -> None:
    images = photos(1000, channels=1, height=2, width=2)
    images[:, :, :, 0], images[:, :, :, 1] = 10, 20
    flipped = augment(images, torch.arange(1000), _only(flip=True), seeded()).images
    is_flipped = flipped[:, 0, 0, 0] > flipped[:, 0, 0, 1]
    kept, mirrored = to_unit(images[0]), to_unit(images[0].flip(2))
    assert all(
        torch.equal(image, mirrored if flip else kept)
        for image, flip in zip(flipped, is_flipped, strict=True)
    )
    assert abs(int(is_flipped.sum()) - 500) < 3 * math.sqrt(1000 / 4)


def test_cutmix_pastes_one_box_of_the_partner_into_every_image() -> None:
    # every image has its own value, so each pixel shows which image it came from
    count, height, width = 5, 32, 28
    images = torch.arange(1.0, count + 1).reshape(count, 1, 1, 1).expand(count, 2, height, width)
    labels = torch.arange(count) + 1
    shares = set()
    for seed in range(200):
        mixed = cutmix(Batch(images, labels), 1.0, seeded(seed))
        assert mixed.other_labels is not None
        assert sorted(mixed.other_labels.tolist()) == labels.tolist()
        moved = [i for i in range(count) if mixed.other_labels[i] != labels[i]]
        if not moved:
            continue
        pasted = mixed.images[moved[0], 0] != labels[moved[0]]
        rows, columns = pasted.any(1).nonzero().flatten(), pasted.any(0).nonzero().flatten()
        box = pasted.sum()
        if box:  # a full rectangle
            assert box == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        for image, own, other in zip(mixed.images, labels, mixed.other_labels, strict=True):
            expected = torch.where(pasted, float(other), float(own)).expand(2, height, width)
            assert torch.equal(image, expected)
        assert mixed.share == pytest.approx(1 - box.item() / (height * width))
        shares.add(round(mixed.share, 3))
    assert len(shares) > 10
    assert min(shares) < 0.4 and max(shares) > 0.9


def test_cutmix_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda = 0.75 on 8x4 pixels gives a 4x2 box around (1, 3), clipped at two borders."""
    monkeypatch.setattr("codingbench.training.augment._beta", lambda beta, generator: 0.75)
    centres = iter((1, 3))
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor(next(centres)))
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: torch.tensor([1, 0]))
    images = torch.stack((torch.zeros(1, 8, 4), torch.ones(1, 8, 4)))
    mixed = cutmix(Batch(images, torch.tensor([4, 5])), 1.0, seeded())
    expected = torch.zeros(8, 4)
    expected[0:3, 2:4] = 1  # rows 1 - 2 to 1 + 2, columns 3 - 1 to 3 + 1
    assert torch.equal(mixed.images[0, 0], expected)
    assert torch.equal(mixed.images[1, 0], 1 - expected)
    assert mixed.share == 1 - 6 / 32
    assert mixed.other_labels is not None and mixed.other_labels.tolist() == [5, 4]


@pytest.mark.parametrize(("beta", "variance"), [(1.0, 1 / 12), (0.5, 1 / 8)])
def test_the_box_follows_the_beta_distribution(beta: float, variance: float) -> None:
    from codingbench.training.augment import _beta

    before = torch.random.get_rng_state()
    generator = seeded()
    draws = torch.tensor([_beta(beta, generator) for _ in range(4000)])
    assert torch.equal(torch.random.get_rng_state(), before)
    # Beta(b, b) has variance 1 / (4 (2 b + 1))
    assert abs(draws.mean() - 0.5) < 3 * math.sqrt(variance / 4000)
    assert draws.var().item() == pytest.approx(variance, rel=0.05)


def test_the_cutmix_coin_is_drawn_for_each_batch() -> None:
    images, labels = photos(2, channels=1, height=2, width=2), torch.arange(2)
    generator = seeded()
    settings = _only(cutmix_probability=0.3)
    mixed = [
        augment(images, labels, settings, generator).other_labels is not None for _ in range(2000)
    ]
    assert abs(sum(mixed) - 600) < 3 * math.sqrt(2000 * 0.3 * 0.7)
    changes = sum(a != b for a, b in itertools.pairwise(mixed))
    assert changes > 600  # independent coins change 0.42 x 1999 = 840 times


@pytest.mark.parametrize(("probability", "is_mixed"), [(0.0, False), (1.0, True)])
def test_a_probability_of_0_or_1_is_certain(probability: float, is_mixed: bool) -> None:
    generator = seeded()
    settings = _only(cutmix_probability=probability)
    for _ in range(200):
        batch = augment(photos(2), torch.arange(2), settings, generator)
        assert (batch.other_labels is not None) == is_mixed


def test_the_same_generator_gives_the_same_batches() -> None:
    def batches(seed: int) -> list[Batch]:
        generator = seeded(seed)
        return [augment(photos(8), torch.arange(8), ALL, generator) for _ in range(6)]

    pairs = zip(batches(1), batches(1), strict=True)
    assert all(torch.equal(a.images, b.images) and a.share == b.share for a, b in pairs)
    pairs = zip(batches(1), batches(2), strict=True)
    assert not any(torch.equal(a.images, b.images) for a, b in pairs)


def test_the_draws_do_not_depend_on_the_images() -> None:
    after = []
    for images in (photos(8), torch.zeros(8, 3, 6, 5, dtype=torch.uint8)):
        generator = seeded(3)
        augment(images, torch.arange(8), ALL, generator)
        after.append(generator.get_state())
    assert torch.equal(*after)


def test_the_loss_is_mixed_as_the_images_are() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0]])  # softmax: 3/4 and 1/4
    first, second = torch.tensor([0]), torch.tensor([1])
    images = torch.zeros(1, 1, 2, 2)
    plain = Batch(images, first).loss(logits, 0.0)
    assert plain.item() == pytest.approx(math.log(4 / 3))
    mixed = Batch(images, first, second, 0.25).loss(logits, 0.0)
    assert mixed.item() == pytest.approx(0.25 * math.log(4 / 3) + 0.75 * math.log(4))


def test_label_smoothing_moves_its_share_to_all_classes() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0]])
    smoothed = Batch(torch.zeros(1, 1, 2, 2), torch.tensor([0])).loss(logits, 0.2)
    assert smoothed.item() == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * math.log(4))
    soft = F.cross_entropy(logits, torch.tensor([[0.9, 0.1]]))
    assert smoothed.item() == pytest.approx(soft.item())


def test_pieces_are_the_batch_in_order_and_share_its_box() -> None:
    images, labels, others = torch.rand(7, 1, 2, 2), torch.arange(7), torch.arange(7).flip(0)
    batch = Batch(images, labels, others, 0.25)
    pieces = batch.pieces(3)
    assert [len(piece.labels) for piece in pieces] == [3, 3, 1]
    assert torch.equal(torch.cat([piece.images for piece in pieces]), images)
    assert torch.equal(torch.cat([piece.labels for piece in pieces]), labels)
    seconds = [piece.other_labels for piece in pieces if piece.other_labels is not None]
    assert torch.equal(torch.cat(seconds), others)
    assert {piece.share for piece in pieces} == {0.25}
    assert Batch(images, labels).pieces(3)[0].other_labels is None


@pytest.mark.parametrize("size", [None, 7, 100])
def test_a_batch_that_fits_is_one_piece(size: int | None) -> None:
    batch = Batch(torch.rand(7, 1, 2, 2), torch.arange(7))
    assert batch.pieces(size) == [batch] and batch.pieces(size)[0] is batch


def test_the_pieces_losses_weighted_by_their_images_are_the_loss_of_the_batch() -> None:
    generator = seeded()
    logits = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    labels, others = torch.randint(5, (2, 7), generator=generator)
    batch = Batch(torch.zeros(7, 1, 2, 2), labels, others, 0.3)
    weighted = [
        len(piece.labels) / 7 * piece.loss(part, 0.1)
        for piece, part in zip(batch.pieces(3), logits.split(3), strict=True)
    ]
    torch.testing.assert_close(sum(weighted), batch.loss(logits, 0.1), rtol=1e-12, atol=0)


# --- reflected borders, alternating flips, cutout ---------------------------------------------


def test_a_row_padded_by_reflection_by_hand() -> None:
    image = torch.tensor([[[[1, 2, 3]]]], dtype=torch.uint8)  # a row: 2 1 2 1 2 3 2 1 2
    seen = {
        tuple(random_crop(image, 3, seeded(i), "reflect").flatten().tolist()) for i in range(99)
    }
    assert seen == {(2, 3, 2), (3, 2, 1), (2, 1, 2), (1, 2, 3), (2, 3, 2), (3, 2, 1), (2, 1, 2)}


@pytest.mark.parametrize(("fill", "mode"), [("black", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize(("height", "width"), [(6, 5), (5, 9)])
def test_crops_are_those_of_torchvision(fill: str, mode: str, height: int, width: int) -> None:
    from torchvision.transforms.v2 import functional

    images, padding = photos(50, height=height, width=width), 4
    crops = random_crop(images, padding, seeded(7), fill)
    places = torch.randint(2 * padding + 1, (2, 50), generator=seeded(7)).T.tolist()
    for image, crop, (top, left) in zip(images, crops, places, strict=True):
        padded = functional.pad(image, [padding], padding_mode=mode)
        assert torch.equal(crop, functional.crop(padded, top, left, height, width))
    assert crops.dtype == torch.uint8


def test_an_image_smaller_than_its_padding_is_reflected_again_and_again() -> None:
    images = photos(200, channels=1, height=2, width=3)
    crops = random_crop(images, 5, seeded(), "reflect")
    for image, crop in zip(images, crops, strict=True):
        assert {*crop.flatten().tolist()} <= {*image.flatten().tolist()}


def test_the_border_of_a_crop_is_black_unless_it_is_to_be_reflected() -> None:
    images = photos(64)
    both = [
        augment(images, torch.arange(64), _only(crop_padding=2, crop_fill=fill), seeded()).images
        for fill in ("black", "reflect")
    ]
    is_black = both[0] == 0
    assert is_black.any() and not (both[1] == 0).any()
    assert torch.equal(both[0][~is_black], both[1][~is_black])


def test_each_image_is_flipped_in_exactly_every_other_epoch() -> None:
    count, cpu = 1000, torch.device("cpu")
    by_epoch = []
    for epoch in range(5):
        order = torch.randperm(count, generator=seeded(epoch))
        flips = torch.empty(count, dtype=torch.bool)
        flips[order] = alternating_flips(order, epoch, seeded(3), cpu)
        by_epoch.append(flips)
    for before, after in itertools.pairwise(by_epoch):
        assert torch.equal(after, ~before)
    assert abs(int(by_epoch[0].sum()) - count // 2) < 3 * math.sqrt(count / 4)
    other = alternating_flips(torch.arange(count), 0, seeded(4), cpu)
    assert not torch.equal(other, by_epoch[0])


def test_the_given_images_are_flipped_and_no_number_is_drawn() -> None:
    images, flips = photos(3), torch.tensor([True, False, True])
    generator, settings = seeded(), _only(flip="alternate")
    batch = augment(images, torch.arange(3), settings, generator, flips)
    assert torch.equal(generator.get_state(), seeded().get_state())
    expected = torch.stack((images[0].flip(2), images[1], images[2].flip(2)))
    assert torch.equal(batch.images, to_unit(expected))
    with pytest.raises(ValueError, match="needs the flips of the epoch, got none"):
        augment(images, torch.arange(3), settings, generator)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 9])
def test_a_cutout_is_the_square_of_the_official_code_clipped_at_the_border(side: int) -> None:
    height, width = 6, 5
    images = photos(400, height=height, width=width)  # no pixel is black
    cut = cutout(images, side, seeded(5))
    generator = seeded(5)
    rows, columns = (torch.randint(n, (400,), generator=generator) for n in (height, width))
    for image, result, row, column in zip(images, cut, rows, columns, strict=True):
        expected = image.numpy().copy()
        top, left = int(row) - side // 2, int(column) - side // 2
        y1, y2 = np.clip([top, top + side], 0, height)
        x1, x2 = np.clip([left, left + side], 0, width)
        expected[:, y1:y2, x1:x2] = 0
        assert np.array_equal(result.numpy(), expected)
    assert torch.equal((cut == 0).any(0).any(0), torch.ones(height, width, dtype=torch.bool))


def test_a_cutout_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    centres = iter(([0, 2], [3, 1]))
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor(next(centres)))
    first, second = cutout(torch.full((2, 1, 3, 4), 9, dtype=torch.uint8), 2, seeded())
    assert first.tolist() == [[[9, 9, 0, 0], [9, 9, 9, 9], [9, 9, 9, 9]]]
    assert second.tolist() == [[[9, 9, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9]]]


def test_the_new_settings_draw_after_the_old_ones_and_change_none_of_their_numbers() -> None:
    plain = augment(photos(8), torch.arange(8), _only(crop_padding=2, flip=True), seeded())
    more = _only(crop_padding=2, flip=True, cutout=2)
    cut = augment(photos(8), torch.arange(8), more, seeded())
    is_cut = (cut.images == 0) & (plain.images != 0)
    assert is_cut.any() and torch.equal(cut.images[~is_cut], plain.images[~is_cut])


def _only(**settings: Any) -> Augment:
    return Augment(**(vars(NOTHING) | settings))
