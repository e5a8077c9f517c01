"""Codings and backbones as a user of the library gives them, written as a grid takes them.

The user gives names, lists of names, or classes. A grid is plain text, which other processes and
other machines can read: a name, ``file.py:Class`` or ``package.module:Class``.
"""

import inspect
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from codingbench.errors import SpecError, StoreError
from codingbench.plugins.code import is_of_session, place_of
from codingbench.plugins.session import SESSION
from codingbench.plugins.source import keep
from codingbench.plugins.specs import split_list
from codingbench.registry import Registry

Entry = str | type
"""A coding or backbone: ``name[param=value]``, ``file.py:Class``, or the class itself."""

Entries = Entry | Sequence[Entry]
"""One of them or several; a text may be a list separated by commas."""

KEPT: Final = "plugins"
"""The folder, inside that of the results, which holds the classes of notebooks and scripts."""

_RESERVED: Final = "[],|"
"""Characters that mean something else in a grid."""


def grid_texts(registry: Registry, entries: Entries, folder: Path) -> list[str]:
    """Return the entries as a grid takes them; classes of the session are kept in ``folder``.

    Raises:
        SpecError: an entry is neither text nor a class of the contract, or its source cannot be
            written down.
        StoreError: the folder cannot be written.
    """
    if isinstance(entries, str):
        entries = split_list(entries)
    elif inspect.isclass(entries):
        entries = [entries]
    elif not isinstance(entries, Sequence):
        raise SpecError(f"{registry.kind}s expects names or classes, got {entries!r}")
    return [_text(registry, entry, folder) for entry in entries]


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder for classes that are only looked at, so that nothing is left behind."""
    with tempfile.TemporaryDirectory(prefix="codingbench-") as folder:
        yield Path(folder)


def _text(registry: Registry, entry: Entry, folder: Path) -> str:
    if inspect.isclass(entry):
        return _text_of_class(registry, entry, folder)
    if not isinstance(entry, str):
        raise SpecError(f"{registry.kind}s expects names or classes, got {entry!r}")
    name, bracket, rest = entry.partition("[")
    cls = registry.registered(name.strip())
    if cls is None or not is_of_session(cls):
        return entry
    current = vars(sys.modules[SESSION]).get(cls.__name__)
    if inspect.isclass(current) and current is not cls:
        raise SpecError(
            f"{name.strip()!r} is registered for an earlier version of {cls.__name__}: "
            f"decorate the new one with @register_{registry.kind}, or give the class itself"
        )
    return f"{_text_of_class(registry, cls, folder)}{bracket}{rest}"


def _text_of_class(registry: Registry, cls: type, folder: Path) -> str:
    registry.require(cls)
    if not is_of_session(cls):
        return place_of(cls)
    try:
        place = _writable(keep(cls, folder))
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"cannot write the folder {str(folder)!r}: {reason}") from error
    return f"{place}:{cls.__name__}"


def _writable(path: Path) -> str:
    """Return the path as a text of the grid can hold it."""
    for place in (str(path), os.path.relpath(path)):
        if not set(_RESERVED) & set(place):
            return place
    raise SpecError(
        f"a class of this session cannot be kept in {str(path.parent)!r}: "
        f"expected a folder without any of {' '.join(_RESERVED)} in its path"
    )
