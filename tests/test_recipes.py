"""Training recipes: what the shipped ones say, and what a recipe file may say."""

from pathlib import Path

import pytest

from codingbench.errors import SpecError
from codingbench.recipes.recipe import (
    FOLDER,
    Augment,
    AutoAugment,
    Erasing,
    Mixup,
    Optimizer,
    RandAugment,
    ResizedCrop,
    Schedule,
    load_recipe,
    recipe_names,
)

QUICK = (FOLDER / "quick.toml").read_text()


def recipe_file(tmp_path: Path, old: str, new: str, name: str = "mine.toml") -> Path:
    """The quick recipe with one of its lines replaced."""
    assert QUICK.count(old) == 1
    path = tmp_path / name
    path.write_text(QUICK.replace(old, new))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        load_recipe(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_shipped_recipe_loads_under_its_name() -> None:
    assert recipe_names() == ["gac", "gac-imagenet", "modern", "quick"]
    assert [load_recipe(name).name for name in recipe_names()] == recipe_names()


def test_the_recipes_of_reference_results_are_the_same_to_the_byte() -> None:
    """Their hashes are in the keys of cells."""
    assert load_recipe("quick").hash == "92e230696c5d"
    assert load_recipe("gac").hash == "c1d77f3cea3f"


def test_gac_is_the_cifar_recipe_of_the_official_code() -> None:
    recipe = load_recipe("gac")
    assert recipe.optimizer == Optimizer("sgd", lr=0.1, weight_decay=5e-5, momentum=0.9)
    assert recipe.schedule == Schedule("epoch", warmup_epochs=0)
    assert recipe.augment == Augment(
        crop_padding=4, flip=True, cutmix_probability=0.5, cutmix_beta=1
    )
    assert (recipe.epochs, recipe.batch_size, recipe.label_smoothing) == (250, 64, 0)


def test_gac_imagenet_is_the_imagenet_recipe_of_the_official_code() -> None:
    recipe = load_recipe("gac-imagenet")
    assert recipe.optimizer == Optimizer("sgd", lr=0.1, weight_decay=1e-5, momentum=0.9)
    assert recipe.schedule == Schedule("epoch", warmup_epochs=0)
    assert recipe.augment == Augment(
        crop_padding=0,
        flip=False,
        cutmix_probability=1,
        cutmix_beta=1,
        resized_crop=ResizedCrop(scale=(0.08, 1), ratio=(0.75, 1.3333)),
        policy=AutoAugment("auto_augment", "imagenet", "nearest", fill=0),
    )
    assert (recipe.epochs, recipe.batch_size, recipe.label_smoothing) == (250, 256, 0.1)


def test_modern_is_the_cifar100_recipe_of_max_former() -> None:
    recipe = load_recipe("modern")
    assert recipe.optimizer == Optimizer("adamw", lr=1.5e-3, weight_decay=0.06, momentum=0.9)
    assert recipe.schedule == Schedule("step", warmup_epochs=20)
    assert recipe.augment == Augment(
        crop_padding=0,
        flip=True,
        cutmix_probability=0.5,
        cutmix_beta=0.5,
        policy=RandAugment("rand_augment", 1, 0.5, 9, 11, "bilinear", fill=0.5),
        erasing=Erasing(0.25, scale=(0.02, 0.3333), ratio=(0.3, 3.3333), fill=0.5),
        mixup=Mixup(probability=0.5, alpha=0.75),
    )
    assert (recipe.epochs, recipe.batch_size, recipe.label_smoothing) == (400, 64, 0.1)


def test_a_recipe_file_is_named_by_its_stem(tmp_path: Path) -> None:
    recipe = load_recipe(str(recipe_file(tmp_path, "epochs = 4", "epochs = 9")))
    assert (recipe.name, recipe.epochs) == ("mine", 9)
    assert recipe.optimizer == load_recipe("quick").optimizer


def test_the_hash_depends_on_the_content_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(QUICK)
    changed = recipe_file(tmp_path, "lr = 5e-3", "lr = 5e-4")
    quick = load_recipe("quick")
    assert load_recipe(str(other)).hash == quick.hash != load_recipe(str(changed)).hash


def test_a_whole_number_stands_for_a_fraction(tmp_path: Path) -> None:
    recipe = load_recipe(str(recipe_file(tmp_path, "lr = 5e-3", "lr = 1")))
    assert type(recipe.optimizer.lr) is float


def test_an_unknown_recipe_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"unknown recipe 'quik'; did you mean 'quick'\?"):
        load_recipe("quik")
    with pytest.raises(SpecError, match="absent"):
        load_recipe(str(tmp_path / "absent.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 4", "epoch = 4", "unknown setting in recipe mine: 'epoch'; did you mean "
         "'epochs'?"),
        ("flip = false", "flop = false", "unknown setting in recipe mine, [augment]: 'flop'; did "
         "you mean 'flip'?"),
        ("epochs = 4", 'hash = "abc"', "unknown setting in recipe mine: 'hash'"),
        ("epochs = 4", "", "recipe mine: setting 'epochs' is missing"),
        ("[optimizer]", "[optimiser]", "recipe mine, [optimizer]: setting 'name' is missing"),
        ("epochs = 4", 'epochs = "4"', "recipe mine: epochs must be int, got '4'"),
        ("epochs = 4", "epochs = 4.0", "recipe mine: epochs must be int, got 4.0"),
        ("epochs = 4", "epochs = true", "recipe mine: epochs must be int, got True"),
        ("flip = false", "flip = 0", "recipe mine, [augment]: flip must be bool, got 0"),
        ("lr = 5e-3", "lr = true", "recipe mine, [optimizer]: lr must be float, got True"),
        ('per = "step"', 'per = "steps"', "unknown value of schedule.per in recipe mine: 'steps'; "
         "did you mean 'step'?"),
        ('name = "adamw"', 'name = "adam"', "unknown value of optimizer.name in recipe mine: "
         "'adam'; did you mean 'adamw'?"),
        ("epochs = 4", "epochs = ", "is not valid TOML"),
    ],
)  # fmt: skip
def test_a_file_that_says_something_else_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert message in refusal(recipe_file(tmp_path, old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 4", "epochs = 0", "epochs must be from 1 to 1e+09, got 0"),
        ("batch_size = 50", "batch_size = 0", "batch_size must be from 1 to 1e+09, got 0"),
        ("val_fraction = 0.1", "val_fraction = 0", "from 0 to 1 but not 0, 1, got 0.0"),
        ("val_fraction = 0.1", "val_fraction = 1", "from 0 to 1 but not 0, 1, got 1.0"),
        ("label_smoothing = 0.0", "label_smoothing = -0.1", "from 0 to 1 but not 1, got -0.1"),
        ("lr = 5e-3", "lr = 0", "lr must be from 0 to inf but not 0, inf, got 0.0"),
        ("lr = 5e-3", "lr = nan", "lr must be from 0 to inf but not 0, inf, got nan"),
        ("momentum = 0.9", "momentum = 1", "momentum must be from 0 to 1 but not 1, got 1.0"),
        ("crop_padding = 0", "crop_padding = -1", "crop_padding must be from 0 to 1e+09, got -1"),
        ("cutmix_probability = 0.0", "cutmix_probability = 1.5", "from 0 to 1, got 1.5"),
        ("cutmix_beta = 1.0", "cutmix_beta = 1e-300", "from 0.001 to 1000, got 1e-300"),
    ],
)
def test_a_figure_out_of_its_range_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert message in refusal(recipe_file(tmp_path, old, new))


def test_a_section_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("optimizer = 3\n")
    assert refusal(path) == "recipe mine, [optimizer] must be a table of settings, got 3"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe")
    assert refusal(path).startswith(f"cannot read the recipe {str(path)!r}")


# --- optional sections ------------------------------------------------------------------------

MODERN = (FOLDER / "modern.toml").read_text()
IMAGENET = (FOLDER / "gac-imagenet.toml").read_text()


def changed(tmp_path: Path, text: str, old: str, new: str) -> Path:
    assert text.count(old) == 1
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    return path


def test_an_optional_section_that_is_absent_is_not_done(tmp_path: Path) -> None:
    assert load_recipe("quick").augment == Augment(0, False, 0.0, 1.0, None, None, None, None)
    path = changed(tmp_path, MODERN, "[augment.mixup]\nprobability = 0.5\nalpha = 0.75\n", "")
    augment = load_recipe(str(path)).augment
    assert augment.mixup is None and augment.erasing == load_recipe("modern").augment.erasing


def test_whole_numbers_stand_for_fractions_in_a_pair(tmp_path: Path) -> None:
    path = changed(tmp_path, IMAGENET, "ratio = [0.75, 1.3333]", "ratio = [1, 2]")
    crop = load_recipe(str(path)).augment.resized_crop
    assert crop is not None and crop.ratio == (1.0, 2.0) and type(crop.ratio[0]) is float


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[augment.mixup]", "[augment.mixap]", "unknown setting in recipe mine, [augment]: 'mixap';"
         " did you mean 'mixup'?"),
        ('name = "rand_augment"', 'name = "rand"', "unknown name in recipe mine, [augment.policy]: "
         "'rand'; did you mean 'rand_augment'? (known: auto_augment, rand_augment)"),
        ('name = "rand_augment"', "name = 3", "unknown name in recipe mine, [augment.policy]: '3'"),
        ('name = "rand_augment"', "", "recipe mine, [augment.policy]: setting 'name' is missing"),
        ('name = "rand_augment"', 'name = "auto_augment"', "unknown setting in recipe mine, "
         "[augment.policy]: 'operations'"),
        ("operations = 1", "", "recipe mine, [augment.policy]: setting 'operations' is missing"),
        ("operations = 1", "operations = 1.5", "[augment.policy]: operations must be int, got 1.5"),
        ("operations = 1", "operations = 0", "[augment.policy]: operations must be from 1 to 100, "
         "got 0"),
        ("magnitude = 9", "magnitude = 11", "recipe mine, [augment.policy]: magnitude must be less "
         "than magnitude_bins, which is 11, got 11"),
        ("magnitude_bins = 11", "magnitude_bins = 1", "magnitude_bins must be from 2 to 1000, got "
         "1"),
        ('interpolation = "bilinear"', 'interpolation = "bicubic"', "unknown value of "
         "augment.policy.interpolation in recipe mine: 'bicubic'"),
        ("fill = 0.5  # there, the", "fill = 128 # the", "[augment.policy]: fill must be from 0 to "
         "1, got 128.0"),
        ("probability = 0.25", "probability = 2", "recipe mine, [augment.erasing]: probability "
         "must be from 0 to 1, got 2.0"),
        ("scale = [0.02, 0.3333]", "scale = [0.3, 0.1]", "recipe mine, [augment.erasing]: scale "
         "must go from low to high, got [0.3, 0.1]"),
        ("scale = [0.02, 0.3333]", "scale = [0, 0.1]", "scale must be from 0 to 1 but not 0, got "
         "0.0"),
        ("scale = [0.02, 0.3333]", "scale = 0.1", "recipe mine, [augment.erasing]: scale must be "
         "two numbers, got 0.1"),
        ("scale = [0.02, 0.3333]", "scale = [0.1]", "scale must be two numbers, got [0.1]"),
        ("scale = [0.02, 0.3333]", "scale = [0.1, true]", "must be two numbers, got [0.1, True]"),
        ("ratio = [0.3, 3.3333]", "ratio = [0.3, inf]", "ratio must be from 0.001 to 1000, got "
         "inf"),
        ("ratio = [0.3, 3.3333]", "ratio = [nan, 1]", "ratio must be from 0.001 to 1000, got nan"),
        ("alpha = 0.75", "alpha = 0", "recipe mine, [augment.mixup]: alpha must be from 0.001 to "
         "1000, got 0.0"),
        ("cutmix_probability = 0.5", "cutmix_probability = 0.6", "recipe mine, [augment.mixup]: "
         "probability and cutmix_probability must add up to 1 at most, got 0.5 and 0.6"),
    ],
)  # fmt: skip
def test_an_optional_section_that_says_something_else_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert message in refusal(changed(tmp_path, MODERN, old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('policy = "imagenet"', 'policy = "imagnet"', "unknown value of augment.policy.policy in "
         "recipe mine: 'imagnet'; did you mean 'imagenet'? (known: cifar10, imagenet, svhn)"),
        ('policy = "imagenet"', "", "recipe mine, [augment.policy]: setting 'policy' is missing"),
        ("scale = [0.08, 1.0]", "scale = [0.08, 1.5]", "recipe mine, [augment.resized_crop]: scale "
         "must be from 0 to 1 but not 0, got 1.5"),
        ("ratio = [0.75, 1.3333]", "", "[augment.resized_crop]: setting 'ratio' is missing"),
    ],
)  # fmt: skip
def test_an_optional_section_of_gac_imagenet_is_refused_likewise(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert message in refusal(changed(tmp_path, IMAGENET, old, new))


@pytest.mark.parametrize("section", ["resized_crop", "policy", "erasing", "mixup"])
def test_an_optional_section_that_is_no_table_is_refused(tmp_path: Path, section: str) -> None:
    path = changed(tmp_path, QUICK, "flip = false", f"flip = false\n{section} = [3]")
    expected = f"recipe mine, [augment.{section}] must be a table of settings, got [3]"
    assert refusal(path) == expected
