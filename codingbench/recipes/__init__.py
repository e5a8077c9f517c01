"""Named training recipes: one TOML file each, the same for every coding of a comparison."""

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))
