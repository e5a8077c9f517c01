"""Optional augmentations, compared with torchvision, literal values and version 0.4.0."""

import hashlib
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from codingbench.backbone import build_network
from codingbench.cells.network import task_of
from codingbench.datasets import find, get_info, load
from codingbench.recipes.recipe import (
    Augment,
    AutoAugment,
    Erasing,
    Mixup,
    RandAugment,
    ResizedCrop,
    load_recipe,
)
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.training.augment import Batch, augment, mixup
from codingbench.training.loop import train
from codingbench.training.meter import Listener
from codingbench.training.policies import apply_policy, erase_
from codingbench.training.splits import Data, hold_out

pytestmark = pytest.mark.usefixtures("one_thread")

SHARED = Path(__file__).parents[2] / "shared" / "datasets"

NOTHING = Augment(crop_padding=0, flip=False, cutmix_probability=0.0, cutmix_beta=1.0)
RAND = RandAugment("rand_augment", 2, 0.5, 9, 11, "bilinear", 0.5)
AUTO = AutoAugment("auto_augment", "imagenet", "nearest", 0.0)
ERASING = Erasing(0.5, (0.02, 0.33), (0.3, 3.3), 0.5)
CROP = ResizedCrop((0.08, 1.0), (0.75, 4 / 3))
ALL = Augment(
    crop_padding=2,
    flip=True,
    cutmix_probability=0.5,
    cutmix_beta=0.5,
    resized_crop=CROP,
    policy=RAND,
    erasing=ERASING,
    mixup=Mixup(0.5, 0.8),
)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def photos(count: int, channels: int = 3, height: int = 12, width: int = 10) -> Tensor:
    shape = (count, channels, height, width)
    return torch.randint(1, 256, shape, generator=seeded(99), dtype=torch.uint8)


def first_seed(seed: int) -> int:
    """Return the first seed drawn from the generator with this seed."""
    return int(torch.randint(2**31, (), generator=seeded(seed)))


# --- recipes without optional augmentations ---------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (load_recipe("quick").augment, "39f37420502d5cbf"),
        (load_recipe("gac").augment, "bc80f015ddb16ede"),
        (Augment(1, True, 0.5, 0.5), "4571bb28eb98b6a7"),
    ],
    ids=["quick", "gac", "half"],
)
def test_recipes_without_the_sections_make_the_batches_they_always_made(
    settings: Augment, expected: str
) -> None:
    """The digests of images, labels, shares and generator are those of version 0.4.0."""
    digest, generator = hashlib.sha256(), seeded(5)
    for channels in (1, 3):
        for _ in range(6):
            batch = augment(photos(8, channels), torch.arange(8), settings, generator)
            digest.update(batch.images.numpy().tobytes())
            digest.update(batch.labels.numpy().tobytes())
            if batch.other_labels is not None:
                digest.update(batch.other_labels.numpy().tobytes())
            digest.update(repr(batch.share).encode())
    digest.update(generator.get_state().numpy().tobytes())
    assert digest.hexdigest()[:16] == expected


def test_recipes_without_the_sections_do_not_import_torchvision() -> None:
    code = (
        "import sys, torch\n"
        "from codingbench.training.augment import augment\n"
        "from codingbench.recipes.recipe import load_recipe\n"
        "images, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4)\n"
        "for name in ('quick', 'gac'):\n"
        "    augment(images, labels, load_recipe(name).augment, torch.Generator())\n"
        "    print('torchvision' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


# --- where the random numbers come from -------------------------------------------------------


def test_the_draws_depend_neither_on_the_images_nor_on_other_draws() -> None:
    after: list[Tensor] = []
    for images in (photos(8), torch.zeros(8, 3, 12, 10, dtype=torch.uint8)):
        torch.rand(len(after))
        before, generator = torch.get_rng_state(), seeded(3)
        for _ in range(4):
            augment(images, torch.arange(8), ALL, generator)
        assert torch.equal(torch.get_rng_state(), before)
        after.append(generator.get_state())
    assert torch.equal(*after)


def test_the_same_generator_gives_the_same_batches_and_leaves_the_images() -> None:
    images, before = photos(8), photos(8)

    def batches(seed: int) -> Tensor:
        generator = seeded(seed)
        made = [augment(images, torch.arange(8), ALL, generator) for _ in range(4)]
        return torch.stack([batch.images for batch in made])

    first = batches(1)
    assert torch.equal(first, batches(1)) and not torch.equal(first, batches(2))
    assert torch.equal(images, before)
    assert first.dtype == torch.float32 and first.min() >= 0 and first.max() <= 1


# --- policies ---------------------------------------------------------------------------------


def test_rand_augment_is_torchvisions_behind_a_coin() -> None:
    from torchvision.transforms import InterpolationMode, v2

    images = photos(40)
    made = apply_policy(images, RAND, seeded(7))
    operation = v2.RandAugment(1, 9, 11, InterpolationMode.BILINEAR, fill=127.5)
    torch.manual_seed(first_seed(7))
    for image, ours in zip(images, made, strict=True):
        for _ in range(2):
            if torch.rand(1) < 0.5:
                image = operation(image)
        assert torch.equal(ours, image)


@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_auto_augment_is_torchvisions(policy: Any) -> None:
    from torchvision.transforms import v2

    images = photos(40)
    made = apply_policy(images, replace(AUTO, policy=policy), seeded(7))
    transform = v2.AutoAugment(v2.AutoAugmentPolicy(policy), fill=0)
    torch.manual_seed(first_seed(7))
    assert torch.equal(made, torch.stack([transform(image) for image in images]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", [RAND, AUTO])
def test_a_policy_changes_pixels_and_nothing_else(
    policy: RandAugment | AutoAugment, channels: int
) -> None:
    images = photos(30, channels)
    before = images.clone()
    made = apply_policy(images, policy, seeded())
    assert (made.shape, made.dtype) == (images.shape, torch.uint8)
    changed = (made != images).flatten(1).any(1).sum()
    assert changed > 5  # of 30: three in four get an operation, and some operations do nothing
    assert torch.equal(images, before)


def test_rand_augment_by_hand() -> None:
    """Apply one operation of strength 9/10 to images whose pixels are all 200.

    Brightness is multiplied by 1 - 0.81 or 1 + 0.81. Solarizing inverts values from 0.1 x 255 on,
    so 200 becomes 55. Posterizing to 8 - round(3.6) = 4 bits turns 11001000 into 11000000. Shears,
    shifts and rotations show the fill, 0.2 x 255. All other operations change nothing.
    """
    certain = RandAugment("rand_augment", 1, 1.0, 9, 11, "nearest", 0.2)
    made = apply_policy(torch.full((400, 1, 12, 10), 200, dtype=torch.uint8), certain, seeded())
    seen = {tuple(image.unique().tolist()) for image in made}
    assert seen == {(38,), (255,), (55,), (192,), (51, 200), (200,)}


def test_a_probability_of_0_leaves_every_image() -> None:
    images = photos(10)
    assert torch.equal(apply_policy(images, replace(RAND, probability=0.0), seeded()), images)


# --- erasing ----------------------------------------------------------------------------------


def test_erasing_by_hand() -> None:
    """A quarter of 8x8 pixels at aspect ratio 1 is a box of 4x4 pixels at any position."""
    images = torch.ones(300, 2, 8, 8)
    erase_(images, Erasing(1.0, (0.25, 0.25), (1.0, 1.0), 0.5), seeded())
    places = set()
    for image in images:
        rows, columns = (image[0] == 0.5).nonzero().unbind(1)
        top, left = int(rows.min()), int(columns.min())
        expected = torch.ones(2, 8, 8)
        expected[:, top : top + 4, left : left + 4] = 0.5
        assert torch.equal(image, expected)
        places.add((top, left))
    assert len(places) == 25  # 300 draws miss a given box with probability (24/25)^300 = 5e-6


def test_erasing_is_torchvisions() -> None:
    from torchvision.transforms import v2

    images = torch.rand(40, 3, 12, 10, generator=seeded(4))
    ours = images.clone()
    erase_(ours, ERASING, seeded(7))
    transform = v2.RandomErasing(0.5, (0.02, 0.33), (0.3, 3.3), value=0.5)
    torch.manual_seed(first_seed(7))
    assert torch.equal(ours, torch.stack([transform(image) for image in images]))


def test_the_share_of_erased_images_is_the_probability() -> None:
    images = torch.ones(1000, 1, 8, 8)
    erase_(images, replace(ERASING, probability=0.25), seeded())
    erased = int((images < 1).flatten(1).any(1).sum())
    assert abs(erased - 250) < 3 * math.sqrt(1000 * 0.25 * 0.75)


# --- Mixup ------------------------------------------------------------------------------------


def test_mixup_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codingbench.training.augment._beta", lambda alpha, generator: 0.75)
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: torch.tensor([1, 0]))
    images = torch.tensor([0.2, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    mixed = mixup(Batch(images, torch.tensor([4, 5])), 1.0, seeded())
    expected = torch.tensor([0.75 * 0.2 + 0.25 * 1.0, 0.75 * 1.0 + 0.25 * 0.2])
    torch.testing.assert_close(mixed.images, expected.reshape(2, 1, 1, 1).expand(2, 1, 2, 2))
    assert mixed.share == 0.75
    assert mixed.labels.tolist() == [4, 5]
    assert mixed.other_labels is not None and mixed.other_labels.tolist() == [5, 4]


def test_mixed_images_stay_between_their_two_originals() -> None:
    images = torch.rand(6, 1, 8, 8, generator=seeded(1))
    images[:, :, 0] = 1.0
    for seed in range(200):
        mixed = mixup(Batch(images, torch.arange(6)), 0.8, seeded(seed))
        assert mixed.other_labels is not None
        other = images[mixed.other_labels]
        assert (mixed.images >= images.minimum(other)).all()
        assert (mixed.images <= images.maximum(other)).all()
        assert (mixed.images[:, :, 0] == 1.0).all()


def test_one_coin_decides_between_cutmix_mixup_and_neither() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 1, 6, 6)
    settings = replace(NOTHING, cutmix_probability=0.3, mixup=Mixup(0.5, 1.0))
    generator, kinds = seeded(), {"cutmix": 0, "mixup": 0, "neither": 0}
    for _ in range(1000):
        batch = augment(images.contiguous(), torch.arange(2), settings, generator)
        if batch.other_labels is None:
            kinds["neither"] += 1
        elif len(batch.images.unique()) <= 2 and batch.share * 36 == pytest.approx(
            round(batch.share * 36)
        ):  # only whole pixels are replaced, and no pixel is grey
            kinds["cutmix"] += 1
        else:
            kinds["mixup"] += 1
    for kind, probability in (("cutmix", 0.3), ("mixup", 0.5), ("neither", 0.2)):
        sigma = math.sqrt(1000 * probability * (1 - probability))
        assert abs(kinds[kind] - 1000 * probability) < 3 * sigma


def test_two_probabilities_of_a_half_leave_no_batch_unmixed() -> None:
    settings, generator = load_recipe("modern").augment, seeded()
    settings = replace(settings, policy=None, erasing=None)
    for _ in range(300):
        assert augment(photos(2), torch.arange(2), settings, generator).other_labels is not None


def test_the_loss_of_a_mixed_batch_is_that_of_the_mixed_smoothed_labels() -> None:
    logits = torch.randn(5, 4, generator=seeded(), dtype=torch.float64)
    mixed = mixup(Batch(torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 3, 0])), 0.8, seeded(1))
    assert mixed.other_labels is not None
    own, other = F.one_hot(mixed.labels, 4), F.one_hot(mixed.other_labels, 4)
    soft = mixed.share * own + (1 - mixed.share) * other
    expected = F.cross_entropy(logits, 0.9 * soft.double() + 0.1 / 4)
    torch.testing.assert_close(mixed.loss(logits, 0.1), expected)


# --- trainings --------------------------------------------------------------------------------


class Silent(Listener):
    def pulse(self, pulse: object) -> None: ...

    def epoch_done(self, row: object) -> None: ...


@pytest.mark.parametrize("dataset", ["fashion_mini", "cifar100"])
@pytest.mark.parametrize("name", ["gac-imagenet", "modern"])
def test_a_network_trains_under_the_recipe(name: str, dataset: str) -> None:
    folder = find(dataset, SHARED if dataset == "cifar100" else None)
    if folder is None:
        pytest.skip("needs the CIFAR-100 files")
    kept, val = hold_out(load(folder, "train", 60), 0.2)
    network = build_network(
        ENCODERS.resolve("direct"),
        BACKBONES.resolve("csnn[width=4]"),
        task_of(get_info(dataset), 1),
        0,
    )
    before = {key: value.clone() for key, value in network.state_dict().items()}
    recipe = replace(load_recipe(name), epochs=2, batch_size=16)
    result = train(network, Data(kept, val, val), recipe, 0, "fp32", Silent())
    assert all(math.isfinite(row["train_loss"]) for row in result.epoch_rows)
    after = network.state_dict()
    head = "backbone.head.linear.weight"
    assert not torch.equal(after[head], before[head])
