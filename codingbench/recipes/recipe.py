"""The settings of a training recipe, and how a recipe is read from its TOML file.

Pydantic checks types and ranges, both when a file is read and when a class below is constructed.
"""

import hashlib
import os
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from codingbench.errors import SpecError, unknown
from codingbench.recipes import FOLDER, recipe_names
from codingbench.recipes.messages import TOGETHER, Sections, explain
from codingbench.runtime.paths import user_path
from codingbench.runtime.toml_files import read_toml

_CONFIG: Final = ConfigDict(extra="forbid", allow_inf_nan=False)

# Strict: neither "4" nor 4.0 is a whole number. A whole number is accepted as a float.
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
CountOrZero = Annotated[int, Field(strict=True, ge=0, le=10**9)]
Positive = Annotated[float, Field(strict=True, gt=0)]
PositiveOrZero = Annotated[float, Field(strict=True, ge=0)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
FractionBelowOne = Annotated[float, Field(strict=True, ge=0, lt=1)]
Shape = Annotated[float, Field(strict=True, ge=1e-3, le=1e3)]
"""Parameter of a beta distribution, or a ratio of sides. Outside this range, draws from a beta
distribution are only 0 and 1, or only 1/2."""


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise PydanticCustomError("order", "must go from low to high")
    return pair


AreaShare = Annotated[float, Field(strict=True, gt=0, le=1)]
AreaShares = Annotated[tuple[AreaShare, AreaShare], AfterValidator(_rising)]
Ratios = Annotated[tuple[Shape, Shape], AfterValidator(_rising)]
"""Range of a width / height; the second number is not less than the first."""

Interpolation = Literal["bilinear", "nearest"]


@dataclass(frozen=True, config=_CONFIG)
class Optimizer:
    """SGD or AdamW; for AdamW, ``momentum`` is the first beta."""

    name: Literal["adamw", "sgd"]
    lr: Positive
    weight_decay: PositiveOrZero
    momentum: FractionBelowOne


@dataclass(frozen=True, config=_CONFIG)
class Schedule:
    """Linear warm-up, then a cosine from ``lr`` to 0, updated once per step or once per epoch."""

    per: Literal["epoch", "step"]
    warmup_epochs: PositiveOrZero


@dataclass(frozen=True, config=_CONFIG)
class ResizedCrop:
    """Cut a random part out of each image and resize it to the images' size, before all else.

    The part's share of the area is uniform in ``scale``. The logarithm of its width / height is
    uniform between the logarithms of ``ratio``. Source: Szegedy et al., "Going deeper with
    convolutions", CVPR 2015 (arXiv 1409.4842), section 6, as torchvision implements it.
    """

    scale: AreaShares
    ratio: Ratios


@dataclass(frozen=True, config=_CONFIG)
class RandAugment:
    """Apply ``operations`` random operations to each image, each with ``probability``.

    All have the same strength ``magnitude``, from 0 to ``magnitude_bins`` - 1. ``interpolation``
    and ``fill``, the grey value (0 to 1) of pixels from outside the image, are used by shears,
    shifts and rotations. Source: Cubuk et al., RandAugment, 2019 (arXiv 1909.13719), as torchvision
    implements it.
    """

    name: Literal["rand_augment"]
    operations: Annotated[int, Field(strict=True, ge=1, le=100)]
    probability: Fraction
    magnitude: Annotated[int, Field(strict=True, ge=0, le=999)]
    magnitude_bins: Annotated[int, Field(strict=True, ge=2, le=1000)]
    interpolation: Interpolation
    fill: Fraction

    def __post_init__(self) -> None:
        if self.magnitude >= self.magnitude_bins:
            raise PydanticCustomError(
                TOGETHER,
                "magnitude must be less than magnitude_bins, which is {bins}, got {given}",
                {"bins": self.magnitude_bins, "given": self.magnitude},
            )


@dataclass(frozen=True, config=_CONFIG)
class AutoAugment:
    """Apply to each image one of the 25 pairs of operations found on the data set in ``policy``.

    Source: Cubuk et al., AutoAugment, CVPR 2019 (arXiv 1805.09501), as torchvision implements it.
    """

    name: Literal["auto_augment"]
    policy: Literal["cifar10", "imagenet", "svhn"]
    interpolation: Interpolation
    fill: Fraction


@dataclass(frozen=True, config=_CONFIG)
class Erasing:
    """Fill a box of an image, with ``probability``, with the grey value ``fill`` (0 to 1).

    ``scale`` is the range of the box's share of the area, ``ratio`` that of its height / width.
    Source: Zhong et al., Random Erasing, AAAI 2020 (arXiv 1708.04896).
    """

    probability: Fraction
    scale: AreaShares
    ratio: Ratios
    fill: Fraction


@dataclass(frozen=True, config=_CONFIG)
class Mixup:
    """Mix a batch, with ``probability``, with its shuffled copy; the share is Beta(alpha, alpha).

    One random number per batch decides between CutMix, Mixup and neither, so their probabilities
    must not add up to more than 1.
    """

    probability: Fraction
    alpha: Shape


@dataclass(frozen=True, config=_CONFIG)
class Augment:
    """Augmentation of training images: padded random crop, horizontal flip, CutMix and more.

    ``crop_padding`` is in pixels, ``cutmix_probability`` is per batch. The sections that default to
    None are left out of a file if they are not used.
    """

    crop_padding: CountOrZero
    flip: Flag
    cutmix_probability: Fraction
    cutmix_beta: Shape
    resized_crop: ResizedCrop | None = None
    policy: Annotated[RandAugment | AutoAugment, Field(discriminator="name")] | None = None
    erasing: Erasing | None = None
    mixup: Mixup | None = None

    def __post_init__(self) -> None:
        if self.mixup and self.cutmix_probability + self.mixup.probability > 1 + 1e-9:
            raise PydanticCustomError(
                TOGETHER,
                "mixup.probability and cutmix_probability must add up to at most 1, got {mixup} "
                "and {cutmix}",
                {"mixup": self.mixup.probability, "cutmix": self.cutmix_probability},
            )


@dataclass(frozen=True, config=_CONFIG)
class RecipeFile:
    """The settings in a recipe's file. All are required, so that nothing is implied."""

    title: str
    source: str
    epochs: Count
    batch_size: Count
    val_fraction: Annotated[float, Field(strict=True, gt=0, lt=1)]
    """Share of the training images that is held out to select an epoch."""
    label_smoothing: FractionBelowOne
    optimizer: Optimizer
    schedule: Schedule
    augment: Augment


@dataclass(frozen=True, config=_CONFIG)
class Recipe(RecipeFile):
    """A training recipe: the settings of its file, its name and a hash of the file's content."""

    name: str
    hash: str


_SECTIONS: Final[Sections] = {
    (): RecipeFile,
    ("optimizer",): Optimizer,
    ("schedule",): Schedule,
    ("augment",): Augment,
    ("augment", "resized_crop"): ResizedCrop,
    ("augment", "policy", "rand_augment"): RandAugment,
    ("augment", "policy", "auto_augment"): AutoAugment,
    ("augment", "erasing"): Erasing,
    ("augment", "mixup"): Mixup,
}


def load_recipe(name: str) -> Recipe:
    """Load a shipped recipe by its name, or any ``path/to/recipe.toml``, named by its stem.

    Raises:
        SpecError: there is no such recipe, or settings in its file are wrong, missing or unknown.
            The message names all of them.
    """
    path = user_path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not os.path.isfile(path):  # also False for text that cannot be a path
        raise SpecError(unknown("recipe", name, recipe_names()))
    if not path.stem.isprintable():
        raise SpecError(f"the recipe {name!r} has control characters in its name")
    text, values = read_toml(path, "recipe")
    try:
        read = TypeAdapter(RecipeFile).validate_python(values)
    except ValidationError as error:
        raise SpecError(f"recipe {path.stem}: {explain(error, _SECTIONS)}") from None
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Recipe(**vars(read), name=path.stem, hash=digest)
