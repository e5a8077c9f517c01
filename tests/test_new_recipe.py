"""``codingbench new recipe``: the file works as it is, and each of its comments may be enabled."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from codingbench.cli.main import app
from codingbench.errors import SpecError
from codingbench.recipes import recipe_names
from codingbench.recipes.recipe import load_recipe


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(words: str) -> Result:
    result = CliRunner().invoke(app, ["new", "recipe", *words.split()])
    if isinstance(result.exception, SpecError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_it_writes_one_file_and_says_what_to_do_next(folder: Path) -> None:
    assert new("mine").stdout == (
        "./mine.toml holds the recipe mine. It equals quick until you change a setting in it; "
        "next:\n"
        "  codingbench run --recipe ./mine.toml --dry-run\n"
        "  codingbench run --recipe quick,./mine.toml\n"
    )
    assert [path.name for path in folder.iterdir()] == ["mine.toml"]
    values = tomllib.loads(Path("mine.toml").read_text())
    assert values == {"extends": "quick"}


@pytest.mark.parametrize("base", recipe_names())
def test_it_equals_the_recipe_that_it_extends(base: str) -> None:
    new(f"mine --extends {base}")
    mine, theirs = load_recipe("mine.toml"), load_recipe(base)
    assert replace(mine, name=base, hash=theirs.hash) == theirs


@pytest.mark.parametrize("base", recipe_names())
def test_each_setting_in_a_comment_has_the_value_that_is_inherited(base: str) -> None:
    new(f"mine --extends {base}")
    text = Path("mine.toml").read_text()
    comments = re.findall(r"^# ([a-z_.]+ = .*)$", text, flags=re.MULTILINE)
    settings = [line for line in comments if not line.startswith(("title", "source"))]
    enabled = "\n".join(line for line in settings if not _leaves_out_a_section(line))
    Path("all.toml").write_text(f'extends = "{base}"\n{enabled}\n')
    every = load_recipe("all.toml")
    assert replace(every, name=base, hash=load_recipe(base).hash) == load_recipe(base)
    assert len(settings) > 15


@pytest.mark.parametrize("base", ["gac-imagenet", "modern"])
def test_each_optional_section_can_be_left_out(base: str) -> None:
    new(f"mine --extends {base}")
    lines = Path("mine.toml").read_text().splitlines()
    off = [line.removeprefix("# ") for line in lines if _leaves_out_a_section(line)]
    Path("less.toml").write_text("\n".join([f'extends = "{base}"', *off]))
    augment = load_recipe("less.toml").augment
    assert (augment.policy, augment.erasing, augment.mixup, augment.resized_crop) == (None,) * 4


def _leaves_out_a_section(line: str) -> bool:
    sections = r"loss|weight_average|augment\.(policy|erasing|mixup|resized_crop)"
    return re.fullmatch(rf"(# )?({sections}) = false", line) is not None


def test_a_file_may_be_extended_from_another_folder(folder: Path) -> None:
    new("first")
    Path("my recipes").mkdir()
    words = ["new", "recipe", "second", "--extends", "first.toml", "--folder", "my recipes"]
    result = CliRunner().invoke(app, words)
    assert "codingbench run --recipe './my recipes/second.toml' --dry-run\n" in result.stdout
    assert load_recipe("my recipes/second.toml").epochs == 4
    text = Path("my recipes/second.toml").read_text()
    assert tomllib.loads(text) == {"extends": "../first.toml"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("gac", "recipe 'gac' already exists: choose another name"),
        ("Mine", "a recipe's name must be in small letters like my_recipe or my-recipe, got"),
        ("../mine", "a recipe's name must be in small letters like my_recipe or my-recipe, got"),
        ("x" * 41, "a recipe's name has at most 40 characters, got 41"),
        ("mine --extends quik", "unknown recipe 'quik'; did you mean 'quick'?"),
        ("mine --folder nowhere", "cannot write mine.toml: there is no folder 'nowhere'"),
    ],
)
def test_an_invalid_name_base_or_folder_is_refused_and_nothing_written(
    words: str, message: str, folder: Path
) -> None:
    with pytest.raises(SpecError) as raised:
        new(words)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)
    assert list(folder.iterdir()) == []


def test_no_file_is_overwritten() -> None:
    Path("mine.toml").write_text("mine")
    with pytest.raises(SpecError, match=r"mine\.toml already exists and is not overwritten"):
        new("mine")
    assert Path("mine.toml").read_text() == "mine"
