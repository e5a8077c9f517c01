"""Training recipes: the settings of the shipped ones, and the errors in a recipe file."""

from dataclasses import replace
from pathlib import Path

import pytest

from codingbench.errors import SpecError
from codingbench.recipes import FOLDER, recipe_names
from codingbench.recipes.recipe import (
    Augment,
    AutoAugment,
    Erasing,
    Mixup,
    Optimizer,
    RandAugment,
    ResizedCrop,
    Schedule,
    load_recipe,
)

QUICK = (FOLDER / "quick.toml").read_text()


def recipe_file(tmp_path: Path, old: str, new: str, name: str = "mine.toml") -> Path:
    """The quick recipe with one of its lines replaced."""
    assert QUICK.count(old) == 1
    path = tmp_path / name
    path.write_text(QUICK.replace(old, new))
    return path


def refusal(path: Path) -> str:
    """Return the message about a recipe of one file, with its name in place of its path."""
    with pytest.raises(SpecError) as caught:
        load_recipe(str(path))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value).replace(f"recipe {path}:", f"recipe {path.stem}:")


def test_every_shipped_recipe_loads_under_its_name() -> None:
    assert recipe_names() == ["gac", "gac-imagenet", "modern", "quick", "sprint"]
    assert [load_recipe(name).name for name in recipe_names()] == recipe_names()


def test_the_hashes_of_the_shipped_recipes_are_those_of_the_stored_cells() -> None:
    """A recipe's hash is part of every cell key, so a changed byte would make cells stale."""
    stored = ("gac", "gac-imagenet", "modern", "quick")
    assert {name: load_recipe(name).hash for name in stored} == {
        "gac": "c1d77f3cea3f",
        "gac-imagenet": "c090ba9fa1b5",
        "modern": "110b7743e275",
        "quick": "92e230696c5d",
    }


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


def test_sprint_is_a_triangle_of_nesterov_sgd_within_30_epochs() -> None:
    recipe = load_recipe("sprint")
    assert recipe.optimizer.name == "sgd" and recipe.optimizer.nesterov
    assert (recipe.schedule.per, recipe.schedule.shape) == ("step", "linear")
    assert 0 < recipe.schedule.warmup_epochs < recipe.epochs <= 30
    assert recipe.batch_size >= 256 and recipe.warning() is None


def test_a_warm_up_as_long_as_the_training_is_a_warning() -> None:
    modern = load_recipe("modern")
    assert modern.warning() is None
    assert replace(modern, epochs=21).warning() is None
    assert replace(modern, epochs=20).warning() is not None
    assert replace(modern, epochs=2).warning() == (
        "recipe modern: warmup_epochs is 20 and epochs is 2, so the warm-up never ends and the "
        "learning rate stays below its full value"
    )


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
        ("epochs = 4", "epoch = 4", "epochs is missing; unknown setting 'epoch' (did you mean "
         "'epochs'?)"),
        ("flip = false", "flop = false", "augment.flip is missing; unknown setting 'augment.flop' "
         "(did you mean 'flip'?)"),
        ("epochs = 4", 'hash = "abc"', "epochs is missing; unknown setting 'hash' (known: augment, "
         "batch_size, epochs, extends, label_smoothing, loss, optimizer, schedule, source, title, "
         "val_fraction, weight_average)"),
        ("epochs = 4", "", "epochs is missing"),
        ("[optimizer]", "[optimiser]", "optimizer is missing; unknown setting 'optimiser' (did you "
         "mean 'optimizer'?)"),
        ("epochs = 4", 'epochs = "4"', "epochs must be a whole number, got '4'"),
        ("epochs = 4", "epochs = 4.0", "epochs must be a whole number, got 4.0"),
        ("epochs = 4", "epochs = true", "epochs must be a whole number, got True"),
        ("flip = false", "flip = 0", "augment.flip must be true, false or 'alternate', got 0"),
        ("flip = false", 'flip = "random"', "augment.flip must be true, false or 'alternate', got "
         "'random'"),
        ("lr = 5e-3", "lr = true", "optimizer.lr must be a number, got True"),
        ('title = "A few epochs with a one-cycle schedule: a first look in minutes"',
         "title = 1979-05-27", "title must be text, got datetime.date(1979, 5, 27)"),
        ('per = "step"', 'per = "steps"', "schedule.per must be 'epoch' or 'step', got 'steps' "
         "(did you mean 'step'?)"),
        ('name = "adamw"', 'name = "adam"', "optimizer.name must be 'adamw', 'muon' or 'sgd', got "
         "'adam' (did you mean 'adamw'?)"),
    ],
)  # fmt: skip
def test_wrong_missing_and_unknown_settings_are_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert refusal(recipe_file(tmp_path, old, new)) == f"recipe mine: {message}"


def test_all_errors_of_a_file_are_in_one_message(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "epochs = 4", "epoch = 4")
    wrong = path.read_text().replace("flip = false", "").replace("lr = 5e-3", "lr = -1")
    path.write_text(wrong.replace("batch_size = 50", 'batch_size = "50"'))
    assert refusal(path) == (
        "recipe mine: epochs is missing; batch_size must be a whole number, got '50'; "
        "optimizer.lr must be greater than 0, got -1; augment.flip is missing; "
        "unknown setting 'epoch' (did you mean 'epochs'?)"
    )


def test_a_long_value_is_shortened(tmp_path: Path) -> None:
    message = refusal(recipe_file(tmp_path, "epochs = 4", f"epochs = {[0] * 200}"))
    assert message.startswith("recipe mine: epochs must be a whole number, got [0, 0, ")
    assert message.endswith("...") and len(message) < 150


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    assert "is not valid TOML" in refusal(recipe_file(tmp_path, "epochs = 4", "epochs = "))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 4", "epochs = 0", "epochs must be at least 1, got 0"),
        ("epochs = 4", "epochs = 1000000001", "epochs must be at most 1000000000, got 1000000001"),
        ("batch_size = 50", "batch_size = 0", "batch_size must be at least 1, got 0"),
        ("val_fraction = 0.1", "val_fraction = 0", "val_fraction must be greater than 0, got 0"),
        ("val_fraction = 0.1", "val_fraction = 1", "val_fraction must be less than 1, got 1"),
        ("label_smoothing = 0.0", "label_smoothing = -0.1", "label_smoothing must be at least 0, "
         "got -0.1"),
        ("lr = 5e-3", "lr = 0", "optimizer.lr must be greater than 0, got 0"),
        ("lr = 5e-3", "lr = nan", "optimizer.lr must be a finite number, got nan"),
        ("lr = 5e-3", "lr = inf", "optimizer.lr must be a finite number, got inf"),
        ("momentum = 0.9", "momentum = 1", "optimizer.momentum must be less than 1, got 1"),
        ("crop_padding = 0", "crop_padding = -1", "augment.crop_padding must be at least 0, got "
         "-1"),
        ("cutmix_probability = 0.0", "cutmix_probability = 1.5", "augment.cutmix_probability must "
         "be at most 1, got 1.5"),
        ("cutmix_beta = 1.0", "cutmix_beta = 1e-300", "augment.cutmix_beta must be at least 0.001, "
         "got 1e-300"),
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert refusal(recipe_file(tmp_path, old, new)) == f"recipe mine: {message}"


def test_a_recipe_cannot_be_constructed_out_of_range() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        replace(load_recipe("quick"), epochs=0)


def test_a_section_that_is_not_a_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("optimizer = 3\n")
    assert "; optimizer must be a table of settings, got 3; " in refusal(path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
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
    assert load_recipe("quick").augment == Augment(0, False, 0.0, 1.0)
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
        ("[augment.mixup]", "[augment.mixap]", "unknown setting 'augment.mixap' (did you mean "
         "'mixup'?)"),
        ('name = "rand_augment"', 'name = "rand"', "augment.policy.name must be 'rand_augment' or "
         "'auto_augment', got 'rand' (did you mean 'rand_augment'?)"),
        ('name = "rand_augment"', "name = 3", "augment.policy.name must be 'rand_augment' or "
         "'auto_augment', got '3'"),
        ('name = "rand_augment"', "", "augment.policy.name is missing"),
        ('name = "rand_augment"', 'name = "auto_augment"', "augment.policy.policy is missing; "
         "unknown setting 'augment.policy.operations' (did you mean 'interpolation'?); "
         "unknown setting 'augment.policy.probability' (did you mean 'policy'?); "
         "unknown setting 'augment.policy.magnitude' (known: fill, interpolation, name, policy); "
         "unknown setting 'augment.policy.magnitude_bins' (known: fill, interpolation, name, "
         "policy)"),
        ("operations = 1", "", "augment.policy.operations is missing"),
        ("operations = 1", "operations = 1.5", "augment.policy.operations must be a whole number, "
         "got 1.5"),
        ("operations = 1", "operations = 0", "augment.policy.operations must be at least 1, got 0"),
        ("magnitude = 9", "magnitude = 11", "augment.policy: magnitude must be less than "
         "magnitude_bins, which is 11, got 11"),
        ("magnitude_bins = 11", "magnitude_bins = 1", "augment.policy.magnitude_bins must be at "
         "least 2, got 1"),
        ('interpolation = "bilinear"', 'interpolation = "bicubic"', "augment.policy.interpolation "
         "must be 'bilinear' or 'nearest', got 'bicubic'"),
        ("fill = 0.5  # there, the", "fill = 128 # the", "augment.policy.fill must be at most 1, "
         "got 128"),
        ("probability = 0.25", "probability = 2", "augment.erasing.probability must be at most 1, "
         "got 2"),
        ("scale = [0.02, 0.3333]", "scale = [0.3, 0.1]", "augment.erasing.scale must go from low "
         "to high, got [0.3, 0.1]"),
        ("scale = [0.02, 0.3333]", "scale = [0, 0.1]", "augment.erasing.scale[0] must be greater "
         "than 0, got 0"),
        ("scale = [0.02, 0.3333]", "scale = 0.1", "augment.erasing.scale must be two numbers, got "
         "0.1"),
        ("scale = [0.02, 0.3333]", "scale = [0.1]", "augment.erasing.scale must be two numbers, "
         "got [0.1]"),
        ("scale = [0.02, 0.3333]", "scale = [0.1, 0.2, 0.3]", "augment.erasing.scale must be two "
         "numbers, got [0.1, 0.2, 0.3]"),
        ("scale = [0.02, 0.3333]", "scale = [0.1, true]", "augment.erasing.scale[1] must be a "
         "number, got True"),
        ("ratio = [0.3, 3.3333]", "ratio = [0.3, inf]", "augment.erasing.ratio[1] must be a finite "
         "number, got inf"),
        ("ratio = [0.3, 3.3333]", "ratio = [nan, 1]", "augment.erasing.ratio[0] must be a finite "
         "number, got nan"),
        ("alpha = 0.75", "alpha = 0", "augment.mixup.alpha must be at least 0.001, got 0"),
        ("cutmix_probability = 0.5", "cutmix_probability = 0.6", "augment: mixup.probability and "
         "cutmix_probability must add up to at most 1, got 0.5 and 0.6"),
    ],
)  # fmt: skip
def test_wrong_settings_in_an_optional_section_are_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert refusal(changed(tmp_path, MODERN, old, new)) == f"recipe mine: {message}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('policy = "imagenet"', 'policy = "imagnet"', "augment.policy.policy must be 'cifar10', "
         "'imagenet' or 'svhn', got 'imagnet' (did you mean 'imagenet'?)"),
        ('policy = "imagenet"', "", "augment.policy.policy is missing"),
        ("scale = [0.08, 1.0]", "scale = [0.08, 1.5]", "augment.resized_crop.scale[1] must be at "
         "most 1, got 1.5"),
        ("ratio = [0.75, 1.3333]", "", "augment.resized_crop.ratio is missing"),
    ],
)  # fmt: skip
def test_wrong_settings_in_an_optional_section_of_gac_imagenet_are_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert refusal(changed(tmp_path, IMAGENET, old, new)) == f"recipe mine: {message}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('name = "muon"', "optimizer: the section rest is missing: with name 'muon' it trains all "
         "but filters"),
        ('name = "sgd"\nrest = {name = "sgd", lr = 1, weight_decay = 0, momentum = 0}',
         "optimizer: the section rest needs name 'muon', got name 'sgd'"),
        ('name = "muon"\nrest = {name = "sdg", lr = 0}', "optimizer.rest.name must be 'adamw' or "
         "'sgd', got 'sdg' (did you mean 'sgd'?); optimizer.rest.lr must be greater than 0, got 0; "
         "optimizer.rest.weight_decay is missing; optimizer.rest.momentum is missing"),
        ('name = "adamw"\nnesterov = true', "optimizer: nesterov needs a momentum above 0 and an "
         "optimizer other than adamw, got name 'adamw' and momentum 0.9"),
        ('name = "sgd"\nnormalises_filters = true', "optimizer: normalises_filters needs name "
         "'muon', got name 'sgd'"),
        ('name = "sgd"\nbias_lr_factor = 0', "optimizer.bias_lr_factor must be greater than 0, got "
         "0"),
    ],
)  # fmt: skip
def test_wrong_settings_of_an_optimizer_are_refused(
    tmp_path: Path, settings: str, message: str
) -> None:
    path = recipe_file(tmp_path, 'name = "adamw"', settings)
    assert refusal(path) == f"recipe mine: {message}"


@pytest.mark.parametrize("section", ["resized_crop", "policy", "erasing", "mixup"])
def test_an_optional_section_that_is_not_a_table_is_refused(tmp_path: Path, section: str) -> None:
    path = changed(tmp_path, QUICK, "flip = false", f"flip = false\n{section} = [3]")
    expected = f"recipe mine: augment.{section} must be a table of settings, got [3]"
    assert refusal(path) == expected


# --- recipes by difference ------------------------------------------------------------------------


def written(folder: Path, **files: str) -> str:
    """Write ``mine`` and other recipes; return the path of ``mine``."""
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    return str(folder / "mine.toml")


def failure(name: str) -> str:
    with pytest.raises(SpecError) as caught:
        load_recipe(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_recipe_may_hold_only_what_differs_from_another(tmp_path: Path) -> None:
    text = 'extends = "gac"\nepochs = 30\n[optimizer]\nlr = 0.2\n[augment]\nflip = false\n'
    mine, gac = load_recipe(written(tmp_path, mine=text)), load_recipe("gac")
    assert (mine.name, mine.epochs, mine.batch_size) == ("mine", 30, gac.batch_size)
    assert mine.optimizer == replace(gac.optimizer, lr=0.2)
    assert mine.augment == replace(gac.augment, flip=False)
    assert mine.schedule == gac.schedule


def test_a_chain_of_recipes_is_read_by_paths_relative_to_each_file(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    written(tmp_path, base='extends = "quick"\nepochs = 7\nbatch_size = 9\n')
    middle = 'extends = "../base.toml"\nbatch_size = 10\n'
    (tmp_path / "inner" / "middle.toml").write_text(middle)
    mine = load_recipe(
        written(tmp_path, mine='extends = "inner/middle.toml"\nlabel_smoothing = 0.5')
    )
    assert (mine.epochs, mine.batch_size, mine.label_smoothing) == (7, 10, 0.5)
    assert mine.augment == load_recipe("quick").augment


def test_false_leaves_out_an_inherited_section(tmp_path: Path) -> None:
    text = 'extends = "modern"\naugment.mixup = false\naugment.erasing.fill = 0.25\n'
    augment, modern = (
        load_recipe(written(tmp_path, mine=text)).augment,
        load_recipe("modern").augment,
    )
    assert augment.mixup is None and augment.policy == modern.policy and modern.erasing is not None
    assert augment.erasing == replace(modern.erasing, fill=0.25)


def test_a_section_that_was_left_out_may_come_back(tmp_path: Path) -> None:
    base = 'extends = "modern"\naugment.mixup = false\n'
    text = 'extends = "base.toml"\naugment.mixup = {probability = 0.1, alpha = 1}\n'
    recipe = load_recipe(written(tmp_path, mine=text, base=base))
    assert recipe.augment.mixup == Mixup(0.1, 1.0)


def test_a_section_of_another_name_inherits_nothing(tmp_path: Path) -> None:
    policy = (
        'policy = {name = "auto_augment", policy = "svhn", interpolation = "nearest", fill = 0}'
    )
    mine = load_recipe(written(tmp_path, mine=f'extends = "modern"\naugment.{policy}\n'))
    assert mine.augment.policy == AutoAugment("auto_augment", "svhn", "nearest", 0.0)
    path = written(tmp_path, mine='extends = "quick"\noptimizer.name = "sgd"\n')
    assert failure(path) == (
        f"recipe mine: optimizer.lr is missing in {path}, quick; optimizer.weight_decay is missing "
        f"in {path}, quick; optimizer.momentum is missing in {path}, quick"
    )


def test_an_inherited_title_and_source_name_what_was_changed(tmp_path: Path) -> None:
    base = 'extends = "gac"\nepochs = 30\n[optimizer]\nlr = 0.2\nmomentum = 0.9\n'
    text = 'extends = "base.toml"\nsource = "my thesis"\naugment.cutout = 8\n'
    gac = load_recipe("gac")
    path = written(tmp_path, mine=text, base=base)
    changed = "; changed by base: epochs, optimizer.lr"  # the momentum is that of gac
    found = load_recipe(str(tmp_path / "base.toml"))
    assert (found.title, found.source) == (gac.title + changed, gac.source + changed)
    mine = load_recipe(path)
    assert mine.title == f"{gac.title}{changed}; changed by mine: augment.cutout"
    assert mine.source == "my thesis"


def test_a_default_that_is_written_is_no_change(tmp_path: Path) -> None:
    text = 'extends = "gac"\naugment.cutout = 0\nschedule.final_factor = 0\nepochs = 3\n'
    mine = load_recipe(written(tmp_path, mine=text))
    assert mine.title == load_recipe("gac").title + "; changed by mine: epochs"


def test_a_section_left_out_is_named_in_the_inherited_source(tmp_path: Path) -> None:
    text = 'extends = "modern"\naugment.mixup = false\n'
    assert load_recipe(written(tmp_path, mine=text)).source.endswith(
        "; changed by mine: augment.mixup.alpha, augment.mixup.probability"
    )


def test_a_recipe_that_changes_nothing_has_the_title_and_source_of_its_base(tmp_path: Path) -> None:
    mine, quick = load_recipe(written(tmp_path, mine='extends = "quick"\n')), load_recipe("quick")
    assert replace(mine, name="quick", hash=quick.hash) == quick and mine.hash != quick.hash


def test_the_hash_changes_with_every_file_of_the_chain(tmp_path: Path) -> None:
    base, text = 'extends = "quick"\nepochs = 7\n', 'extends = "base.toml"\n'
    hashes = [
        load_recipe(written(tmp_path, mine=mine, base=its_base)).hash
        for mine, its_base in [(text, base), (text, base + "\n"), (text + "\n", base)]
    ]
    assert len({*hashes, load_recipe("quick").hash}) == 4
    assert load_recipe(written(tmp_path, mine=text, base=base)).hash == hashes[0]


def test_all_errors_of_a_chain_are_in_one_message_with_their_files(tmp_path: Path) -> None:
    base = 'title = "x"\nepochs = 0\n[augment]\nflop = true\n[augment.erasing]\nfill = 2\n'
    text = 'extends = "base.toml"\nsource = "y"\nbatch_size = "8"\n[optimizer]\nlr = 1\n'
    path = written(tmp_path, mine=text, base=base)
    message = failure(path)
    below = str(tmp_path / "base.toml")
    for sentence in (
        f"epochs must be at least 1, got 0 in {below}",
        f"batch_size must be a whole number, got '8' in {path}",
        f"val_fraction is missing in {path}, {below}",
        f"optimizer.name is missing in {path}, {below}",
        f"augment.erasing.fill must be at most 1, got 2 in {below}",
        f"unknown setting 'augment.flop' (did you mean 'flip'?) in {below}",
    ):
        assert sentence in message


def test_settings_that_do_not_fit_together_over_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, mine='extends = "modern"\naugment.cutmix_probability = 0.9\n')
    assert failure(path) == (
        "recipe mine: augment: mixup.probability and cutmix_probability must add up to at most 1, "
        f"got 0.5 and 0.9 in {path}"
    )


def test_a_missing_base_names_the_nearest(tmp_path: Path) -> None:
    path = written(tmp_path, mine='extends = "quik"\n')
    assert failure(path).startswith(
        f"recipe mine: extends in {path}: unknown recipe 'quik'; did you mean 'quick'? (known: gac"
    )
    written(tmp_path, mine='extends = "base.toml"\n')
    assert f"extends in {path}: there is no recipe file 'base.toml'" in failure(path)
    written(tmp_path, mine="extends = 3\n")
    assert failure(path) == (
        f"recipe mine: extends in {path} must be a recipe's name or the path of a file, got 3"
    )


def test_a_recipe_that_extends_itself_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, mine='extends = "mine.toml"\n')
    assert failure(path) == f"recipe mine extends itself: {path} -> {path}"
    written(tmp_path, mine='extends = "base.toml"\n', base='extends = "./mine.toml"\n')
    other = str(tmp_path / "base.toml")
    assert failure(path) == f"recipe mine extends itself: {path} -> {other} -> {path}"


def test_false_where_nothing_is_inherited_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, mine='extends = "quick"\naugment.mixup = false\n')
    assert failure(path) == (
        f"recipe mine: augment.mixup must be a table of settings, got False in {path}"
    )


def test_a_required_section_cannot_be_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, mine='extends = "quick"\noptimizer = false\n')
    assert failure(path) == f"recipe mine: optimizer is missing in {path}, quick"
