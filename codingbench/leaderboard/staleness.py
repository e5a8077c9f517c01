"""Which cells were made by a plug-in or recipe of this package that has changed since."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from codingbench.plugin_code import family, hash_of
from codingbench.recipes import FOLDER as RECIPES

_PACKAGES = {"encoder": "codingbench.encoders", "backbone": "codingbench.backbones"}


def is_stale(cells: pd.DataFrame) -> "pd.Series[bool]":
    """Per cell: the file of its encoder, backbone or recipe is another now.

    What is not of this package (a file of the user's own) is not looked for. Nothing is imported:
    plug-ins would import torch.
    """
    stale = pd.Series(False, index=cells.index)
    for kind, package in _PACKAGES.items():
        spec = importlib.util.find_spec(package)
        folders = spec.submodule_search_locations if spec else None
        hashes = plugin_hashes(Path(folders[0] if folders else "."))
        stale |= _differs(cells, kind, f"{kind}_code", hashes)
    recipes = {file.stem: hash_of([file]) for file in RECIPES.glob("*.toml")}
    return stale | _differs(cells, "recipe", "recipe_hash", recipes)


def plugin_hashes(folder: Path) -> dict[str, str]:
    """Of every plug-in in a folder of this package, by name, what ``code_hash`` gives its class."""
    return {file.stem: hash_of(family(file)) for file in folder.glob("[!_]*.py")}


def _differs(
    cells: pd.DataFrame, name: str, code: str, hashes: Mapping[str, str]
) -> "pd.Series[bool]":
    """Whether the hash in column ``code`` is not the one of ``name`` now, where that is known."""
    now = cells[name].astype(str).str.split("[", n=1).str[0].map(hashes)
    return now.notna() & (now != cells[code])
