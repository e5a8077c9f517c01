"""Published numbers of others, shown beside measured ones but never ranked with them.

All of them are in ``published.toml``, each with its place in the paper and its training recipe.
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
    encoder: str | None = None  # label of the same coding in this package
    num_steps: int | None = None
    parameters: int | None = None
    energy_uj: float | None = None  # per image
    energy_convention: str | None = None
    note: str | None = None
    possible_steps: tuple[int, ...] = ()  # where sources disagree on T

    def is_of(self, num_steps: int) -> bool:
        """Return True if the result is, or may be, one of this number of steps."""
        return num_steps == self.num_steps or num_steps in self.possible_steps


@functools.cache
def published() -> tuple[Published, ...]:
    """Return all published results, in the order of the file."""
    _, content = read_toml(FILE, "table of published results")
    return tuple(
        _entry(source, result) for source in content["source"] for result in source["results"]
    )


def _entry(source: dict[str, Any], result: dict[str, Any]) -> Published:
    """Combine what a source says about all its results with one of them."""
    values = {name: value for name, value in source.items() if name != "results"} | result
    values["source"] = values.pop("name")
    values["accuracy"] /= 100
    values["possible_steps"] = tuple(values.get("possible_steps", ()))
    if (millions := values.pop("parameters_m", None)) is not None:
        values["parameters"] = round(1e6 * millions)
    if (millijoules := values.pop("energy_mj", None)) is not None:
        values["energy_uj"] = 1000 * millijoules
    return Published(**values)
