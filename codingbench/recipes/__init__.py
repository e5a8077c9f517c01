"""Named training recipes: one TOML file each, the same for every coding of a comparison."""

import hashlib
import math
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from codingbench.errors import SpecError, unknown
from codingbench.toml_files import read_toml

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
    "cutmix_beta": (0, math.inf, (0, math.inf)),
}
"""Setting -> lowest and highest value, and those between them that are not allowed."""


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
class Augment:
    """Padded random crop (pixels), horizontal flip, CutMix with a coin and a box per batch."""

    crop_padding: int
    flip: bool
    cutmix_probability: float
    cutmix_beta: float


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
    for section, kind in (("optimizer", Optimizer), ("schedule", Schedule), ("augment", Augment)):
        values[section] = _read(
            kind, values.get(section, {}), f"recipe {path.stem}, [{section}]", {}
        )
    given = {"name": path.stem, "hash": hashlib.sha256(text.encode()).hexdigest()[:12]}
    recipe: Recipe = _read(Recipe, values, f"recipe {path.stem}", given)
    _check(recipe)
    return recipe


def _read(kind: Any, values: Any, where: str, given: dict[str, str]) -> Any:
    """``kind`` filled from ``values``; every field must be there, with its type, and no other.

    ``given`` holds the fields that do not come from the file.
    """
    if not isinstance(values, dict):
        raise SpecError(f"{where} must be a table of settings, got {values!r}")
    declared = {field.name: field.type for field in fields(kind) if field.name not in given}
    for key in values:
        if key not in declared:
            raise SpecError(unknown(f"setting in {where}:", key, declared))
    for key, annotation in declared.items():
        if key not in values:
            raise SpecError(f"{where}: setting {key!r} is missing")
        if annotation is float and type(values[key]) is int and abs(values[key]) < 2**63:
            values[key] = float(values[key])
        if isinstance(annotation, type) and type(values[key]) is not annotation:
            expected = annotation.__name__
            raise SpecError(f"{where}: {key} must be {expected}, got {values[key]!r}")
    return kind(**values, **given)


def _check(recipe: Recipe) -> None:
    choices = {
        "optimizer.name": (recipe.optimizer.name, ("adamw", "sgd")),
        "schedule.per": (recipe.schedule.per, ("epoch", "step")),
    }
    for key, (value, valid) in choices.items():
        if value not in valid:
            raise SpecError(unknown(f"value of {key} in recipe {recipe.name}:", value, valid))
    for part in (recipe, recipe.optimizer, recipe.schedule, recipe.augment):
        for key, value in vars(part).items():
            if key in BOUNDS:
                _check_bound(key, value, recipe.name)


def _check_bound(key: str, value: float, name: str) -> None:
    low, high, exclusive = BOUNDS[key]
    # Written so that NaN fails.
    if not (low <= value <= high) or value in exclusive:
        without = f" but not {', '.join(f'{v:g}' for v in exclusive)}" if exclusive else ""
        raise SpecError(
            f"recipe {name}: {key} must be from {low:g} to {high:g}{without}, got {value}"
        )
