"""Plug-ins of installed distributions, found by their entry points.

The groups are ``codingbench.encoders``, ``codingbench.backbones`` and ``codingbench.datasets``.
Names are read from the distributions' metadata, so listing them imports nothing.
"""

import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from codingbench.errors import SpecError
from codingbench.plugins.code import imported

_GROUP_PREFIX = "codingbench."


@dataclass(frozen=True)
class Publication:
    """An entry point, and the distribution (name and version) that publishes it."""

    entry: metadata.EntryPoint
    distribution: str

    @property
    def name(self) -> str:
        """The name of the plug-in."""
        return self.entry.name

    def load(self, kind: str) -> Any:
        """Import and return the object that the entry point refers to.

        Raises:
            SpecError: its module cannot be imported, or does not define the object.
        """
        return imported(f"{kind} {self.name!r} of {self.distribution}", self.entry.load)

    def is_home_of(self, cls: type) -> bool:
        """Return whether the class is from the top-level package that the entry point names."""
        return cls.__module__.partition(".")[0] == re.split("[.:]", self.entry.value)[0].strip()


def published(group: str) -> list[Publication]:
    """Return all entry points of a group, sorted by name."""
    ours = [found for found in _published(tuple(sys.path)) if found.entry.group == group]
    return sorted(ours, key=lambda found: (found.name, found.distribution))


def publication(kind: str, group: str, name: str, is_shipped: bool) -> Publication | None:
    """Return the entry point with that name, or None if there is none.

    Raises:
        SpecError: the name is published more than once, counting codingbench's own plug-in.
    """
    found = [candidate for candidate in published(group) if candidate.name == name]
    owners = ["codingbench"] * is_shipped + [candidate.distribution for candidate in found]
    if len(owners) > 1:
        raise SpecError(
            f"{kind} {name!r} is published by {' and by '.join(owners)}; names must be unique"
        )
    return found[0] if found else None


@cache
def _published(path: tuple[str, ...]) -> tuple[Publication, ...]:
    """Return all entry points of our groups on a search path.

    If a distribution is found twice, the first one counts.
    """
    found: dict[str, list[Publication]] = {}
    for distribution in metadata.distributions(path=list(path)):
        # A distribution with broken metadata must not break codingbench: it is left out.
        try:
            ours = [
                entry
                for entry in distribution.entry_points
                if entry.group.startswith(_GROUP_PREFIX)
            ]
            owner = f"{distribution.name} {distribution.version}" if ours else ""
            name = distribution.name if ours else ""
        except Exception:
            continue
        if ours:
            found.setdefault(name, [Publication(entry, owner) for entry in ours])
    return tuple(entry for entries in found.values() for entry in entries)
