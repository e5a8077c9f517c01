"""Which cells were made by a plug-in or recipe of this package that has changed since."""

from collections.abc import Mapping

import pandas as pd

from codingbench.plugins.code import family, hash_of
from codingbench.recipes import FOLDER as RECIPES
from codingbench.registry import BACKBONES, ENCODERS, Registry


def is_stale(cells: pd.DataFrame) -> "pd.Series[bool]":
    """Per cell: the file of its encoder, backbone or recipe is another now.

    What is not of this package (a file of the user's own) is not looked for. Nothing is imported:
    plug-ins would import torch.
    """
    stale = pd.Series(False, index=cells.index)
    for registry in (ENCODERS, BACKBONES):
        stale |= _differs(cells, registry.kind, f"{registry.kind}_code", plugin_hashes(registry))
    recipes = {file.stem: hash_of([file]) for file in RECIPES.glob("*.toml")}
    return stale | _differs(cells, "recipe", "recipe_hash", recipes)


def plugin_hashes(registry: Registry) -> dict[str, str]:
    """Of every plug-in of this package, by name, what ``code_hash`` gives its class."""
    return {name: hash_of(family(file)) for name, file in registry.shipped().items()}


def _differs(
    cells: pd.DataFrame, name: str, code: str, hashes: Mapping[str, str]
) -> "pd.Series[bool]":
    """Whether the hash in column ``code`` is not the one of ``name`` now, where that is known."""
    now = cells[name].astype(str).str.split("[", n=1).str[0].map(hashes)
    return now.notna() & (now != cells[code])
