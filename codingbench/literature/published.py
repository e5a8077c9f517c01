"""Numbers that others have published, to stand beside what is measured here, never ranked with it.

All of them are in ``published.toml``, each with where it stands and under which recipe.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from codingbench.runtime.toml_files import read_toml

FILE: Final = Path(__file__).with_name("published.toml")


@dataclass(frozen=True)
class Published:
    """One published result."""

    source: str  # short name
    where: str  # paper and table
    method: str
    dataset: str
    network: str
    accuracy: float  # in [0, 1]
    recipe: str
    encoder: str | None = None  # as it is called here
    num_steps: int | None = None
    parameters: int | None = None
    energy_uj: float | None = None  # per image
    energy_convention: str | None = None
    note: str | None = None


@functools.cache
def published() -> tuple[Published, ...]:
    """All published results, in the order of the file."""
    _, content = read_toml(FILE, "table of published results")
    return tuple(
        _entry(source, result) for source in content["source"] for result in source["results"]
    )


def _entry(source: dict[str, Any], result: dict[str, Any]) -> Published:
    """What a source says of all its results, and of this one."""
    said = {name: value for name, value in source.items() if name != "results"} | result
    said["source"] = said.pop("name")
    said["accuracy"] /= 100
    if (millions := said.pop("parameters_m", None)) is not None:
        said["parameters"] = round(1e6 * millions)
    if (millijoules := said.pop("energy_mj", None)) is not None:
        said["energy_uj"] = 1000 * millijoules
    return Published(**said)
