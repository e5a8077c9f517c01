"""Find the cells that were made by a plug-in or recipe that has changed since then."""

from collections.abc import Mapping

import pandas as pd

from codingbench.plugins.code import hash_of
from codingbench.plugins.family import family
from codingbench.recipes import recipe_names
from codingbench.recipes.chain import read_chain
from codingbench.registry import BACKBONES, ENCODERS, Registry


def is_stale(cells: pd.DataFrame) -> "pd.Series[bool]":
    """Return for each cell whether the file of its encoder, backbone or recipe has changed.

    Only files of this package are checked, not those of the user. Plug-ins are not imported,
    because they would import torch.
    """
    stale = pd.Series(False, index=cells.index)
    for registry in (ENCODERS, BACKBONES):
        stale |= _differs(cells, registry.kind, f"{registry.kind}_code", plugin_hashes(registry))
    recipes = {name: read_chain(name).hash for name in recipe_names()}
    return stale | _differs(cells, "recipe", "recipe_hash", recipes)


def plugin_hashes(registry: Registry) -> dict[str, str]:
    """Return the hash of every plug-in of this package by name, as ``code_hash`` computes it."""
    return {name: hash_of(family(file)) for name, file in registry.shipped().items()}


def _differs(
    cells: pd.DataFrame, name: str, code: str, hashes: Mapping[str, str]
) -> "pd.Series[bool]":
    """Return whether the hash in column ``code`` differs from the present one, if it is known."""
    now = cells[name].astype(str).str.split("[", n=1).str[0].map(hashes)
    return now.notna() & (now != cells[code])
