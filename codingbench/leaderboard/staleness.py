"""Which cells were made by a plug-in or recipe of this package that has changed since."""

import hashlib
import importlib.util
from pathlib import Path

import pandas as pd

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
        stale |= _differs(cells, kind, f"{kind}_code", Path(folders[0] if folders else "."), "py")
    return stale | _differs(cells, "recipe", "recipe_hash", RECIPES, "toml")


def _differs(
    cells: pd.DataFrame, name: str, code: str, folder: Path, suffix: str
) -> "pd.Series[bool]":
    """Whether the hash in column ``code`` is not that of the file of ``name`` in ``folder``."""
    names = cells[name].astype(str).str.split("[", n=1).str[0]
    known = {file.stem: _hash(file) for file in folder.glob(f"[!_]*.{suffix}")}
    now = names.map(known)
    return now.notna() & (now != cells[code])


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
