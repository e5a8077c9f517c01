"""The settings of a training recipe, and how a recipe is read from its TOML file.

Pydantic checks types and ranges, both when a file is read and when a class below is constructed.
"""

from dataclasses import MISSING, fields
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from codingbench.errors import SpecError
from codingbench.recipes.chain import read_chain
from codingbench.recipes.messages import TOGETHER, Sections, explain

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


def _known_flip(value: object) -> object:
    if not isinstance(value, bool) and value != "alternate":
        raise PydanticCustomError("flip", "must be true, false or 'alternate'")
    return value


Flip = Annotated[bool | Literal["alternate"], BeforeValidator(_known_flip)]


@dataclass(frozen=True, config=_CONFIG)
class Rest:
    """The optimizer of the parameters that Muon leaves: all but the filters of convolutions."""

    name: Literal["adamw", "sgd"]
    lr: Positive
    weight_decay: PositiveOrZero
    momentum: FractionBelowOne
    nesterov: Flag = False

    def __post_init__(self) -> None:
        _check_nesterov(self)


@dataclass(frozen=True, config=_CONFIG)
class Optimizer:
    """SGD, AdamW or Muon; for AdamW, ``momentum`` is the first beta.

    ``bias_lr_factor`` and ``norm_lr_factor`` multiply the learning rate of biases (those of
    normalisation layers too) and of normalisation weights. A ``norm_lr_factor`` of 0 freezes these
    weights. ``decays_norm_and_bias`` applies weight decay to both.

    Muon updates the filters of the backbone's convolutions, and the optimizer of the section
    ``rest`` everything else. Before each step of Muon, ``normalises_filters`` scales every filter
    bank to the norm sqrt(channels out). It is meant for networks that normalise what each
    convolution returns.
    """

    name: Literal["adamw", "muon", "sgd"]
    lr: Positive
    weight_decay: PositiveOrZero
    momentum: FractionBelowOne
    nesterov: Flag = False
    bias_lr_factor: Positive = 1.0
    norm_lr_factor: PositiveOrZero = 1.0
    decays_norm_and_bias: Flag = True
    rest: Rest | None = None
    normalises_filters: Flag = False

    def __post_init__(self) -> None:
        _check_nesterov(self)
        is_muon = self.name == "muon"
        if is_muon and self.rest is None:
            raise PydanticCustomError(
                TOGETHER, "the section rest is missing: with name 'muon' it trains all but filters"
            )
        if self.rest is not None and not is_muon:
            raise PydanticCustomError(
                TOGETHER,
                "the section rest needs name 'muon', got name '{name}'",
                {"name": self.name},
            )
        if self.normalises_filters and not is_muon:
            raise PydanticCustomError(
                TOGETHER,
                "normalises_filters needs name 'muon', got name '{name}'",
                {"name": self.name},
            )


def _check_nesterov(settings: Rest | Optimizer) -> None:
    """Refuse Nesterov's momentum where there is none, or where AdamW would ignore it."""
    if settings.nesterov and (settings.name == "adamw" or settings.momentum == 0):
        raise PydanticCustomError(
            TOGETHER,
            "nesterov needs a momentum above 0 and an optimizer other than adamw, got name "
            "'{name}' and momentum {momentum}",
            {"name": settings.name, "momentum": settings.momentum},
        )


@dataclass(frozen=True, config=_CONFIG)
class Schedule:
    """Linear warm-up, then a course of the rate to its end, updated once per step or per epoch.

    The course after the warm-up is half a ``cosine`` or a ``linear`` fall from ``lr`` to
    ``final_factor`` times ``lr``. A triangular schedule is a warm-up and a linear fall.
    ``one_cycle`` is a cosine whose warm-up follows half a cosine, too, from ``lr`` / 25 (Smith and
    Topin, arXiv 1708.07120, as in torch's ``OneCycleLR``).
    """

    per: Literal["epoch", "step"]
    warmup_epochs: PositiveOrZero
    shape: Literal["cosine", "linear", "one_cycle"] = "cosine"
    final_factor: Fraction = 0.0


@dataclass(frozen=True, config=_CONFIG)
class WeightAverage:
    """An exponential mean of the weights, which is evaluated in place of the weights themselves.

    Every ``every_steps`` steps of the optimizer the mean becomes ``decay`` x mean + (1 - decay) x
    weights. Buffers, such as running statistics, are averaged likewise.
    """

    decay: Fraction
    every_steps: Count


@dataclass(frozen=True, config=_CONFIG)
class Loss:
    """The loss: cross-entropy of the mean logits, or the mean over steps of the cross-entropy.

    The second, ``tet``, is (1 - mse_weight) x mean over t of CE(logits[t], label) + mse_weight x
    mean over t of MSE(logits[t], mse_target). Source: Deng et al., "Temporal Efficient Training",
    ICLR 2022 (arXiv 2202.11946), equation 9 and section 4, with the official code's TET_loss.
    """

    name: Literal["mean", "tet"]
    mse_weight: FractionBelowOne = 0.0
    mse_target: Positive = 1.0


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

    ``crop_padding`` is in pixels, and the padding is black or the reflected image.
    ``flip = "alternate"`` draws for each image once whether it is flipped in even or in odd epochs.
    ``cutout`` is the side in pixels of a black square at a random place. ``cutmix_probability`` is
    per batch. Settings with a default are left out of a file if they are not used.
    """

    crop_padding: CountOrZero
    flip: Flip
    cutmix_probability: Fraction
    cutmix_beta: Shape
    crop_fill: Literal["black", "reflect"] = "black"
    cutout: CountOrZero = 0
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
    """The settings in a recipe's file, after merging it with what it extends.

    Those without a default are required; a default is that the setting has no effect.
    """

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
    loss: Loss | None = None
    weight_average: WeightAverage | None = None


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class Recipe(RecipeFile):
    """A training recipe: the settings of its file, its name and a hash of the file's content."""

    name: str
    hash: str

    def warning(self) -> str | None:
        """Return one line if the warm-up is as long as the training, or None."""
        warmup = self.schedule.warmup_epochs
        if warmup < self.epochs:
            return None
        return (
            f"recipe {self.name}: warmup_epochs is {warmup:g} and epochs is {self.epochs}, so the "
            "warm-up never ends and the learning rate stays below its full value"
        )


_SECTIONS: Final[Sections] = {
    (): RecipeFile,
    ("optimizer",): Optimizer,
    ("optimizer", "rest"): Rest,
    ("schedule",): Schedule,
    ("augment",): Augment,
    ("augment", "resized_crop"): ResizedCrop,
    ("augment", "policy", "rand_augment"): RandAugment,
    ("augment", "policy", "auto_augment"): AutoAugment,
    ("augment", "erasing"): Erasing,
    ("augment", "mixup"): Mixup,
    ("loss",): Loss,
    ("weight_average",): WeightAverage,
}

_ADVICE: Final = '; a file with extends = "quick", for example, holds only what differs'
"""Added where a recipe of one file lacks settings."""
_DEFAULTS: Final = {
    ".".join([*map(str, place[:2]), field.name]): field.default  # a third part names a class
    for place, section in _SECTIONS.items()
    for field in fields(section)
    if field.default is not MISSING
}


def load_recipe(name: str) -> Recipe:
    """Load a shipped recipe by its name, or any ``path/to/recipe.toml``, named by its stem.

    Raises:
        SpecError: there is no such recipe, or settings in its file are wrong, missing or unknown.
            The message names all of them, and the file of each if the recipe extends another.
    """
    chain = read_chain(name)
    try:
        read = TypeAdapter(RecipeFile).validate_python(chain.values(_DEFAULTS))
    except ValidationError as error:
        reasons = explain(error, _SECTIONS, chain.file_of)
        advice = _ADVICE if len(chain.files) == 1 and "title is missing" in reasons else ""
        raise SpecError(f"recipe {chain.shown}: {reasons}{advice}") from None
    return Recipe(**vars(read), name=chain.name, hash=chain.hash)
