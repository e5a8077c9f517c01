"""Find the cells that were made by a plug-in or recipe that has changed since then."""

from collections.abc import Collection, Mapping

import pandas as pd

from codingbench.plugins.code import hash_of
from codingbench.plugins.family import family
from codingbench.plugins.trust import origin_of
from codingbench.recipes import recipe_names
from codingbench.recipes.chain import read_chain
from codingbench.registry import BACKBONES, ENCODERS, NEURONS, Registry


def is_stale(cells: pd.DataFrame) -> "pd.Series[bool]":
    """Return for each cell whether the file of its encoder, backbone, neuron or recipe has changed.

    Files of this package are checked, and those from which this user ran plug-ins on this machine.
    Plug-ins are not imported, because they would import torch.
    """
    stale = pd.Series(False, index=cells.index)
    for registry in (ENCODERS, BACKBONES, NEURONS):
        shipped = plugin_hashes(registry)
        stale |= _differs(cells, registry.kind, f"{registry.kind}_code", shipped)
        stale |= _has_changed_file(cells, registry.kind, shipped)
    recipes = {name: read_chain(name).hash for name in recipe_names()}
    return stale | _differs(cells, "recipe", "recipe_hash", recipes)


def plugin_hashes(registry: Registry) -> dict[str, str]:
    """Return the hash of every plug-in of this package by name, as ``code_hash`` computes it."""
    return {name: hash_of(family(file)) for name, file in registry.shipped().items()}


def _has_changed_file(
    cells: pd.DataFrame, kind: str, shipped: Collection[str]
) -> "pd.Series[bool]":
    """Return whether the user's own file behind a cell now has another hash."""
    name = cells[kind].astype(str).str.split("[", n=1).str[0]
    codes = cells[f"{kind}_code"].where(~name.isin(shipped))
    changed = [code for code in codes.dropna().unique() if _is_changed(code)]
    return codes.isin(changed)


def _is_changed(code: str) -> bool:
    origin = origin_of(code)
    return origin is not None and origin.code() not in (code, None)


def _differs(
    cells: pd.DataFrame, name: str, code: str, hashes: Mapping[str, str]
) -> "pd.Series[bool]":
    """Return whether the hash in column ``code`` differs from the present one, if it is known."""
    now = cells[name].astype(str).str.split("[", n=1).str[0].map(hashes)
    return now.notna() & (now != cells[code])
