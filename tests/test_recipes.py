"""Training recipes: what the shipped ones say, and what a recipe file may say."""

from pathlib import Path

import pytest

from codingbench.errors import SpecError
from codingbench.recipes import FOLDER, Augment, Optimizer, Schedule, load_recipe, recipe_names

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
    assert recipe_names() == ["gac", "quick"]
    assert [load_recipe(name).name for name in recipe_names()] == ["gac", "quick"]


def test_gac_is_the_cifar_recipe_of_the_official_code() -> None:
    recipe = load_recipe("gac")
    assert recipe.optimizer == Optimizer("sgd", lr=0.1, weight_decay=5e-5, momentum=0.9)
    assert recipe.schedule == Schedule("epoch", warmup_epochs=0)
    assert recipe.augment == Augment(
        crop_padding=4, flip=True, cutmix_probability=0.5, cutmix_beta=1
    )
    assert (recipe.epochs, recipe.batch_size, recipe.label_smoothing) == (250, 64, 0)


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
