"""What installed distributions publish: entry points in the groups ``codingbench.encoders``,
``codingbench.backbones`` and ``codingbench.datasets``.

Names come from the distributions' metadata, so listing them imports nothing.
"""

import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from codingbench.errors import SpecError
from codingbench.plugins.code import imported

_OURS = "codingbench."


@dataclass(frozen=True)
class Publication:
    """An entry point, and the distribution (name and version) that publishes it."""

    entry: metadata.EntryPoint
    distribution: str

    @property
    def name(self) -> str:
        """What it is asked for by."""
        return self.entry.name

    def load(self, kind: str) -> Any:
        """Import what it stands for.

        Raises:
            SpecError: its module cannot be imported, or does not hold it.
        """
        return imported(f"{kind} {self.name!r} of {self.distribution}", self.entry.load)

    def is_home_of(self, cls: type) -> bool:
        """Whether the class is of the package that the entry point leads to."""
        return cls.__module__.partition(".")[0] == re.split("[.:]", self.entry.value)[0].strip()


def published(group: str) -> list[Publication]:
    """All that is published in a group, in order of names."""
    ours = [found for found in _published(tuple(sys.path)) if found.entry.group == group]
    return sorted(ours, key=lambda found: (found.name, found.distribution))


def publication(kind: str, group: str, name: str, is_shipped: bool) -> Publication | None:
    """What is published under a name, None if nothing is.

    Raises:
        SpecError: there is more than one of the name, counting the one that codingbench ships.
    """
    found = [candidate for candidate in published(group) if candidate.name == name]
    owners = ["codingbench"] * is_shipped + [candidate.distribution for candidate in found]
    if len(owners) > 1:
        raise SpecError(
            f"{kind} {name!r} is published by {' and by '.join(owners)}: expected one of a name"
        )
    return found[0] if found else None


@cache
def _published(path: tuple[str, ...]) -> tuple[Publication, ...]:
    """Everything ours on a search path; of a distribution found twice the first counts."""
    found: dict[str, list[Publication]] = {}
    for distribution in metadata.distributions(path=list(path)):
        # What others install may be broken; it then publishes nothing, and breaks nothing.
        try:
            ours = [entry for entry in distribution.entry_points if entry.group.startswith(_OURS)]
            owner = f"{distribution.name} {distribution.version}" if ours else ""
            name = distribution.name if ours else ""
        except Exception:
            continue
        if ours:
            found.setdefault(name, [Publication(entry, owner) for entry in ours])
    return tuple(entry for entries in found.values() for entry in entries)
