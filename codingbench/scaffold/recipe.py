"""Write a new recipe that extends another: a file to change, with every setting in a comment."""

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from codingbench.errors import SpecError
from codingbench.recipes import recipe_names
from codingbench.recipes.chain import flat_settings
from codingbench.recipes.recipe import Recipe, load_recipe
from codingbench.scaffold.new import LONGEST

_NAME: Final = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_REQUIRED: Final = {"optimizer", "optimizer.rest", "schedule", "augment"}
_NOT_LISTED: Final = {"title", "source", "name", "hash"}

_HEAD: Final = """\
# {name}: the recipe {base}, until you change a setting below. To do so, remove the # before it.
# A file holds only what differs: all other settings come from the recipe that it extends.
extends = {extends}

# What it is, and its source. Without these two lines, lists and citations show those of {base},
# followed by the names of the settings that you changed.
# title = "One line about {name}"
# source = "Who made it, and where it is described"

# The settings of {base}. A section with another name, such as another optimizer, inherits nothing.
"""
_OFF: Final = "\n# To leave out a section that {base} has:\n"
_TAIL: Final = "\n# Sections that {base} does not have are in codingbench/recipes/README.md.\n"


@dataclass(frozen=True)
class WrittenRecipe:
    """A recipe that was written: its file, and the name or path of the recipe that it extends."""

    path: Path
    base: str

    def __str__(self) -> str:
        """Return where the file is, and the commands to run next."""
        place = self.path.as_posix() if self.path.is_absolute() else f"./{self.path.as_posix()}"
        both = shlex.quote(f"{self.base},{place}")
        return (
            f"{place} holds the recipe {self.path.stem}. It equals {self.base} until you change a "
            f"setting in it; next:\n"
            f"  codingbench run --recipe {shlex.quote(place)} --dry-run\n"
            f"  codingbench run --recipe {both}\n"
        )


def new_recipe(name: str, extends: str, folder: Path) -> WrittenRecipe:
    """Write a recipe to ``name.toml`` in the folder.

    Args:
        name: name of the recipe, in small letters, digits, ``_`` and ``-``.
        extends: name of a shipped recipe, or path of a TOML file.
        folder: an existing folder.

    Raises:
        SpecError: the folder or the extended recipe does not exist, the name is not valid, or it is
            taken.
    """
    path = folder / f"{name}.toml"
    _check_name(name)
    if not folder.is_dir():
        raise SpecError(f"cannot write {name}.toml: there is no folder {str(folder)!r}")
    if os.path.lexists(path):
        raise SpecError(f"{path} already exists and is not overwritten")
    text = _text(name, load_recipe(extends), extends, folder)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    return WrittenRecipe(path, extends)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SpecError(
            f"a recipe's name must be in small letters like my_recipe or my-recipe, got {name!r}"
        )
    if len(name) > LONGEST:
        raise SpecError(f"a recipe's name has at most {LONGEST} characters, got {len(name)}")
    if name in recipe_names():
        raise SpecError(f"recipe {name!r} already exists: choose another name")


def _text(name: str, base: Recipe, extends: str, folder: Path) -> str:
    is_file = extends.endswith(".toml")
    place = Path(os.path.relpath(extends, folder)).as_posix() if is_file else extends
    names = {"name": name, "base": base.name, "extends": _toml(place)}
    settings = {key: value for key, value in asdict(base).items() if key not in _NOT_LISTED}
    used = [(key, value) for key, value in flat_settings(settings) if value is not None]
    lines = [f"# {key} = {_toml(value)}\n" for key, value in used]
    off = [f"# {section} = false\n" for section in _sections(settings) if section not in _REQUIRED]
    parts = [_HEAD.format(**names), *lines]
    if off:
        parts += [_OFF.format(**names), *off]
    return "".join([*parts, _TAIL.format(**names)])


def _sections(settings: Mapping[str, Any], outer: str = "") -> Iterator[str]:
    """Yield the names of all sections, written as ``section.section``."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield f"{outer}{name}"
            yield from _sections(value, f"{outer}{name}.")


def _toml(value: Any) -> str:
    """Return a setting as TOML writes it, which is as JSON does for text, numbers and lists."""
    return json.dumps(value, ensure_ascii=False)
