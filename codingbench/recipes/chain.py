"""Recipes by difference: the file of a recipe, with the files of the recipes that it extends.

A file with ``extends = "quick"`` holds only the settings that differ from those of ``quick``. This
module merges the settings; :mod:`codingbench.recipes.recipe` checks their types and ranges.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from codingbench.errors import SpecError, printable, unknown
from codingbench.recipes import FOLDER, recipe_names
from codingbench.runtime.paths import user_path
from codingbench.runtime.toml_files import read_toml

EXTENDS: Final = "extends"
_DESCRIPTIONS: Final = ("title", "source")


@dataclass(frozen=True)
class RecipeText:
    """The content of one file.

    ``shown`` names the file in messages, by its path or, if it ships, by the recipe's name.
    """

    shown: str
    path: Path
    text: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Chain:
    """The files of a recipe: its own, the one which that extends, and so on."""

    files: tuple[RecipeText, ...]

    @property
    def name(self) -> str:
        """The name of the recipe, which is the stem of its own file."""
        return self.files[0].path.stem

    @property
    def shown(self) -> str:
        """The recipe in messages: its name, or the path of the file if that stands alone."""
        return self.files[0].shown if len(self.files) == 1 else self.name

    @property
    def hash(self) -> str:
        """12 hexadecimal digits that change with the content of any of the files."""
        content = "\0".join(file.text for file in self.files)  # TOML cannot hold a NUL
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def values(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Return the merged settings.

        A title or a source that is inherited names the settings that were changed, so that nobody
        is cited for them.

        Args:
            defaults: values of the settings that a file may leave out, by ``section.setting``.
        """
        *changing, first = self.files
        merged = dict(first.values)
        for file in reversed(changing):
            changes = {name: value for name, value in file.values.items() if name != EXTENDS}
            base, merged = merged, _merged(merged, changes)
            if changed := _differences(base, merged, defaults):
                note = f"; changed by {printable(file.path.stem)}: {', '.join(changed)}"
                inherited = [name for name in _DESCRIPTIONS if name not in changes]
                merged |= {n: base[n] + note for n in inherited if isinstance(base.get(n), str)}
        return merged

    def file_of(self, place: Sequence[int | str], is_missing: bool) -> str:
        """Return in which file a setting stands, or is missing, as an addition to a message.

        Nothing is added for a recipe of one file, which :attr:`shown` names.
        """
        if len(self.files) == 1:
            return ""
        names = [file.shown for file in self.files if is_missing or _holds(file.values, place)]
        return f" in {', '.join(names if is_missing else names[:1])}" if names else ""


def read_chain(name: str) -> Chain:
    """Read a shipped recipe by its name, or ``path/to/recipe.toml``, and what it extends.

    Raises:
        SpecError: a file does not exist, cannot be read or is not TOML, or a recipe extends itself.
    """
    path = user_path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not os.path.isfile(path):  # also False for text that cannot be a path
        if name.endswith(".toml"):
            raise SpecError(f"there is no recipe file {name!r}; codingbench new recipe writes one")
        file = "; the name of a recipe file ends in .toml" if "/" in name else ""
        raise SpecError(unknown("recipe", name, recipe_names()) + file)
    if not path.stem.isprintable():
        raise SpecError(f"the recipe {name!r} has control characters in its name")
    files = [RecipeText(name, path, *read_toml(path, "recipe"))]
    while EXTENDS in files[-1].values:
        files.append(_base(files))
    return Chain(tuple(files))


def _base(files: Sequence[RecipeText]) -> RecipeText:
    """Read the recipe that the last file extends."""
    last, base = files[-1], files[-1].values[EXTENDS]
    about = f"recipe {files[0].path.stem}: {EXTENDS} in {last.shown}"
    if not isinstance(base, str):
        raise SpecError(f"{about} must be a recipe's name or the path of a file, got {base!r}")
    is_file = base.endswith(".toml")
    path = last.path.parent / base if is_file else FOLDER / f"{base}.toml"
    if not os.path.isfile(path):
        missing = f"there is no recipe file {base!r}"
        reason = missing if is_file else unknown("recipe", base, recipe_names())
        raise SpecError(f"{about}: {reason}")
    shown = printable(str(path)) if is_file else base
    if path.resolve() in [file.path.resolve() for file in files]:
        places = " -> ".join([*(file.shown for file in files), shown])
        raise SpecError(f"recipe {files[0].path.stem} extends itself: {places}")
    return RecipeText(shown, path, *read_toml(path, "recipe"))


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a section, where ``changes`` win over ``base``.

    ``false`` in place of an inherited section removes it. A section with another ``name`` inherits
    nothing, because the settings of one method mean nothing to another.
    """
    merged = dict(base)
    for name, value in changes.items():
        inherited = base.get(name)
        if isinstance(inherited, dict) and value is False:
            del merged[name]
        elif isinstance(inherited, dict) and isinstance(value, dict) and _fits(inherited, value):
            merged[name] = _merged(inherited, value)
        else:
            merged[name] = value
    return merged


def _fits(inherited: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    return "name" not in changes or changes["name"] == inherited.get("name")


def _differences(
    base: Mapping[str, Any], merged: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[str]:
    """Return the settings that differ, as ``section.setting``, without title and source."""
    one, other = dict(flat_settings(base)), dict(flat_settings(merged))
    names = sorted({*one, *other}.difference(_DESCRIPTIONS))
    return [n for n in names if one.get(n, defaults.get(n)) != other.get(n, defaults.get(n))]


def flat_settings(values: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting, written as ``section.setting``, with its value."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat_settings(value, f"{section}{name}.")
        else:
            yield f"{section}{name}", value


def _holds(values: Any, place: Sequence[int | str]) -> bool:
    """Return True if the settings have an entry at a place."""
    for part in place:
        if isinstance(part, str):
            if not isinstance(values, dict) or part not in values:
                return False
            values = values[part]
    return True
