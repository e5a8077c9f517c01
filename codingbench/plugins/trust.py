"""Sources of plug-ins that this user has run or trusts, and the files that they come from.

A source that was run on this machine, or that the user trusts by ``--trust-code``, is copied into
the user's own data folder under the hash of its content. The code of a cell is only ever imported
from that copy, never from a results folder: results that came from elsewhere execute nothing, even
if they are altered after they were looked at.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs

from codingbench.errors import StoreError
from codingbench.plugins import kept
from codingbench.plugins.code import files_of, hash_of, place_of
from codingbench.plugins.kept import Source

_ORIGINS: Final = "origins"


@dataclass(frozen=True)
class Origin:
    """The files that a plug-in was run from, on this machine.

    Args:
        name: its name in the tables.
        place: ``file.py:Class`` or ``package.module:Class``.
        files: the files of its hash, in order.
    """

    name: str
    place: str
    files: Sequence[str]

    def code(self) -> str | None:
        """Return the hash of the files as they are now; None if one is gone."""
        try:
            return hash_of(map(Path, self.files))
        except OSError:
            return None


def trust(source: Source) -> Path:
    """Copy a source into the user's data folder, and return the copy's folder.

    Raises:
        OSError: the data folder cannot be written.
    """
    folder = _folder(source)
    if not is_trusted(source):
        folder.parent.mkdir(parents=True, exist_ok=True)
        kept.write(source, folder)
    return folder


def is_trusted(source: Source) -> bool:
    """Return whether this user has run the source on this machine, or trusts it."""
    try:
        return kept.read(_folder(source)) == source
    except StoreError:
        return False


def copy_of(source: Source) -> Path:
    """Return the folder of the user's own copy of a trusted source."""
    return _folder(source)


def remember(cls: type, name: str, code: str) -> None:
    """Record which files a plug-in was run from, to see later whether they have changed.

    Raises:
        OSError: the data folder cannot be written.
    """
    files = [os.path.abspath(file) for file in files_of(cls)]
    place = place_of(cls)
    path, _, class_name = place.rpartition(":")
    if path.endswith(".py"):
        place = f"{os.path.abspath(path)}:{class_name}"
    folder = data_folder() / _ORIGINS
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{code}-{os.getpid()}.tmp"
    temporary.write_text(json.dumps({"name": name, "place": place, "files": files}))
    os.replace(temporary, folder / f"{code}.json")


def origin_of(code: object) -> Origin | None:
    """Return where the plug-in with that hash was run from; None if it is not known here."""
    if not kept.is_code(code):
        return None
    path = data_folder() / _ORIGINS / f"{code}.json"
    with suppress(OSError, ValueError, TypeError):
        return Origin(**json.loads(path.read_text()))
    return None


def places_of(name: str) -> Iterator[str]:
    """Yield the places from which plug-ins of that name were run, as far as they exist."""
    for path in sorted((data_folder() / _ORIGINS).glob("*.json")):
        found = origin_of(path.stem)
        if found and found.name == name and found.code() is not None:
            yield found.place


def data_folder() -> Path:
    """Return the folder of this user's data of codingbench."""
    return Path(platformdirs.user_data_dir("codingbench", appauthor=False))


def _folder(source: Source) -> Path:
    return data_folder() / kept.FOLDER / source.digest
