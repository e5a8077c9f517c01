"""Named training recipes: one TOML file each, the same for every coding of a comparison."""

import hashlib
import math
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from codingbench.errors import SpecError, unknown
from codingbench.runtime.toml_files import read_toml

FOLDER = Path(__file__).parent

Bound = tuple[float, float, tuple[float, ...]]
_MOST: Final = 10**9  # no training has more of anything
BOUNDS: Final[dict[str, Bound]] = {
    "epochs": (1, _MOST, ()),
    "batch_size": (1, _MOST, ()),
    "val_fraction": (0, 1, (0, 1)),
    "label_smoothing": (0, 1, (1,)),
    "lr": (0, math.inf, (0, math.inf)),
    "weight_decay": (0, math.inf, (math.inf,)),
    "momentum": (0, 1, (1,)),
    "warmup_epochs": (0, math.inf, ()),
    "crop_padding": (0, _MOST, ()),
    "cutmix_probability": (0, 1, ()),
    "cutmix_beta": (1e-3, 1e3, ()),  # beyond, the draws are 0 and 1, or 1/2
    "scale": (0, 1, (0,)),
    "ratio": (1e-3, 1e3, ()),
    "fill": (0, 1, ()),
    "probability": (0, 1, ()),
    "alpha": (1e-3, 1e3, ()),
    "operations": (1, 100, ()),
    "magnitude_bins": (2, 1000, ()),
    "magnitude": (0, 999, ()),
}
"""Setting -> lowest and highest value, and those between them that are not allowed."""

INTERPOLATIONS: Final = ("bilinear", "nearest")
AUTO_AUGMENT_POLICIES: Final = ("cifar10", "imagenet", "svhn")

Pair = tuple[float, float]
"""From the first to the second, which is no less."""


@dataclass(frozen=True)
class Optimizer:
    """``name`` is ``sgd`` or ``adamw``; ``momentum`` is AdamW's first beta."""

    name: str
    lr: float
    weight_decay: float
    momentum: float


@dataclass(frozen=True)
class Schedule:
    """Cosine from ``lr`` to 0, its value set anew ``per`` step or epoch, after a linear warm-up."""

    per: str
    warmup_epochs: float


@dataclass(frozen=True)
class ResizedCrop:
    """A random part of each image, brought to the images' size, before all else.

    Its share of the area is uniform in ``scale``, the logarithm of its width / height in that of
    ``ratio``. Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015 (arXiv
    1409.4842), section 6, in torchvision's form.
    """

    scale: Pair
    ratio: Pair


@dataclass(frozen=True)
class RandAugment:
    """``operations`` random ones per image, each done with ``probability``, of equal strength.

    ``magnitude`` is that strength, of 0 to ``magnitude_bins`` - 1. ``interpolation`` and the grey
    ``fill`` (0 to 1) of what enters at the border are those of shears, shifts and rotations.
    Source: Cubuk et al., RandAugment, 2019 (arXiv 1909.13719), in torchvision's form.
    """

    name: str
    operations: int
    probability: float
    magnitude: int
    magnitude_bins: int
    interpolation: str
    fill: float


@dataclass(frozen=True)
class AutoAugment:
    """One of the 25 pairs of operations found on the data set that ``policy`` names, per image.

    Source: Cubuk et al., AutoAugment, CVPR 2019 (arXiv 1805.09501), in torchvision's form.
    """

    name: str
    policy: str
    interpolation: str
    fill: float


@dataclass(frozen=True)
class Erasing:
    """With ``probability``, a box of an image becomes the grey ``fill`` (0 to 1).

    ``scale`` is its share of the area, ``ratio`` its height / width. Source: Zhong et al., Random
    Erasing, AAAI 2020 (arXiv 1708.04896).
    """

    probability: float
    scale: Pair
    ratio: Pair
    fill: float


@dataclass(frozen=True)
class Mixup:
    """A batch is mixed with its own shuffled copy with ``probability``, by Beta(alpha, alpha).

    One coin per batch decides: CutMix, Mixup or neither; the two probabilities add up to 1 at
    most.
    """

    probability: float
    alpha: float


@dataclass(frozen=True)
class Augment:
    """Padded random crop (pixels), horizontal flip, CutMix with a coin and a box per batch.

    The others are sections of their own; what is absent is not done.
    """

    crop_padding: int
    flip: bool
    cutmix_probability: float
    cutmix_beta: float
    resized_crop: ResizedCrop | None = None
    policy: RandAugment | AutoAugment | None = None
    erasing: Erasing | None = None
    mixup: Mixup | None = None


OPTIONAL: Final[dict[str, type | dict[str, type]]] = {
    "resized_crop": ResizedCrop,
    "policy": {"auto_augment": AutoAugment, "rand_augment": RandAugment},
    "erasing": Erasing,
    "mixup": Mixup,
}
"""Section of [augment] that may be absent -> what it says; of several, its ``name`` tells which."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; every figure of it is in the file, nothing is implied."""

    name: str
    title: str
    source: str
    epochs: int
    batch_size: int
    val_fraction: float  # of the training images, held out to select an epoch
    label_smoothing: float
    optimizer: Optimizer
    schedule: Schedule
    augment: Augment
    hash: str  # of the file's content


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """A shipped recipe by its name, or any ``path/to/recipe.toml``, named by its stem.

    Raises:
        SpecError: no such recipe, or the file says something that a recipe does not have.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not os.path.isfile(path):  # false, too, for what no path can be
        raise SpecError(unknown("recipe", name, recipe_names()))
    if not path.stem.isprintable():
        raise SpecError(f"the recipe {name!r} has control characters in its name")
    text, values = read_toml(path, "recipe")
    _read_optional(values.get("augment"), f"recipe {path.stem}")
    for section, kind in (("optimizer", Optimizer), ("schedule", Schedule), ("augment", Augment)):
        values[section] = _read(
            kind, values.get(section, {}), f"recipe {path.stem}, [{section}]", {}
        )
    given = {"name": path.stem, "hash": hashlib.sha256(text.encode()).hexdigest()[:12]}
    recipe: Recipe = _read(Recipe, values, f"recipe {path.stem}", given)
    _check(recipe)
    return recipe


def _read_optional(augment: Any, recipe: str) -> None:
    """Put what the optional sections say in their place."""
    present = OPTIONAL.keys() & augment.keys() if isinstance(augment, dict) else set()
    for section in sorted(present):
        kind, values = OPTIONAL[section], augment[section]
        where = f"{recipe}, [augment.{section}]"
        if isinstance(kind, dict) and isinstance(values, dict):
            if "name" not in values:
                raise SpecError(f"{where}: setting 'name' is missing")
            name = str(values["name"])
            if name not in kind:
                raise SpecError(unknown(f"name in {where}:", name, kind))
            kind = kind[name]
        augment[section] = _read(kind, values, where, {})


def _read(kind: Any, values: Any, where: str, given: dict[str, str]) -> Any:
    """``kind`` filled from ``values``; every field must be there, with its type, and no other.

    ``given`` holds the fields that do not come from the file. Those whose default is None are
    sections that may be absent.
    """
    if not isinstance(values, dict):
        raise SpecError(f"{where} must be a table of settings, got {values!r}")
    declared = {field.name: field.type for field in fields(kind) if field.name not in given}
    optional = {field.name for field in fields(kind) if field.default is None}
    for key in values:
        if key not in declared:
            raise SpecError(unknown(f"setting in {where}:", key, declared))
    for key, annotation in declared.items():
        if key not in values and key in optional:
            continue
        if key not in values:
            raise SpecError(f"{where}: setting {key!r} is missing")
        if annotation is float:
            values[key] = _as_float(values[key])
        if annotation == Pair:
            values[key] = _as_pair(values[key], f"{where}: {key}")
        if isinstance(annotation, type) and type(values[key]) is not annotation:
            expected = annotation.__name__
            raise SpecError(f"{where}: {key} must be {expected}, got {values[key]!r}")
    return kind(**values, **given)


def _as_float(value: Any) -> Any:
    """A whole number stands for a fraction."""
    return float(value) if type(value) is int and abs(value) < 2**63 else value


def _as_pair(values: Any, what: str) -> Pair:
    pair = tuple(map(_as_float, values)) if isinstance(values, list) else ()
    if len(pair) != 2 or any(type(value) is not float for value in pair):
        raise SpecError(f"{what} must be two numbers, got {values!r}")
    return pair


def _check(recipe: Recipe) -> None:
    where, augment = f"recipe {recipe.name}", recipe.augment
    choices: dict[str, tuple[str, tuple[str, ...]]] = {
        "optimizer.name": (recipe.optimizer.name, ("adamw", "sgd")),
        "schedule.per": (recipe.schedule.per, ("epoch", "step")),
    }
    if augment.policy:
        choices["augment.policy.interpolation"] = augment.policy.interpolation, INTERPOLATIONS
    if isinstance(augment.policy, AutoAugment):
        choices["augment.policy.policy"] = augment.policy.policy, AUTO_AUGMENT_POLICIES
    for key, (value, valid) in choices.items():
        if value not in valid:
            raise SpecError(unknown(f"value of {key} in recipe {recipe.name}:", value, valid))
    for part in (recipe, recipe.optimizer, recipe.schedule, augment):
        _check_bounds(part, where)
    for section in OPTIONAL:
        if part := getattr(augment, section):
            _check_bounds(part, f"{where}, [augment.{section}]")
    _check_together(augment, where)


def _check_bounds(part: Any, where: str) -> None:
    for key, value in vars(part).items():
        if key not in BOUNDS:
            continue
        pair = value if isinstance(value, tuple) else (value, value)
        for number in pair:
            _check_bound(key, number, where)
        if pair[0] > pair[1]:
            raise SpecError(f"{where}: {key} must go from low to high, got {list(pair)}")


def _check_bound(key: str, value: float, where: str) -> None:
    low, high, exclusive = BOUNDS[key]
    # Written so that NaN fails.
    if not (low <= value <= high) or value in exclusive:
        without = f" but not {', '.join(f'{v:g}' for v in exclusive)}" if exclusive else ""
        raise SpecError(f"{where}: {key} must be from {low:g} to {high:g}{without}, got {value}")


def _check_together(augment: Augment, where: str) -> None:
    """What one setting says of another."""
    policy, mixup = augment.policy, augment.mixup
    if isinstance(policy, RandAugment) and policy.magnitude >= policy.magnitude_bins:
        raise SpecError(
            f"{where}, [augment.policy]: magnitude must be less than magnitude_bins, which is "
            f"{policy.magnitude_bins}, got {policy.magnitude}"
        )
    if mixup and augment.cutmix_probability + mixup.probability > 1 + 1e-9:
        raise SpecError(
            f"{where}, [augment.mixup]: probability and cutmix_probability must add up to 1 at "
            f"most, got {mixup.probability} and {augment.cutmix_probability}"
        )
