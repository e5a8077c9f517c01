"""Data sets of the user's own, by a name that says where and in what form they are.

    digits.npz            arrays that numpy.savez wrote
    data.py:MyDataset     a function, class or object of a Python file
    parquet:FOLDER        Parquet shards in a layout of Hugging Face
    hf:FOLDER             what the library ``datasets`` writes by ``save_to_disk``

The name in the tables has no path: ``./here/digits.npz`` is ``digits.npz`` there, and is found
again in the folder of data sets.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from codingbench.datasets.description import DatasetInfo
from codingbench.errors import DatasetError, SpecError
from codingbench.runtime.paths import data_folder, user_path

if TYPE_CHECKING:  # listing the data sets does not need them
    from codingbench.datasets.arrays import ArrayData

FORMS: Final = ("folder:PATH", "FILE.npz", "FILE.py:NAME", "parquet:PATH", "hf:PATH")
"""The forms in which a user names data sets of their own."""

_PYTHON: Final = ".py:"
_TABLES: Final = ("parquet:", "hf:")


@dataclass(frozen=True, eq=False)
class OwnArrays:
    """Arrays of the user: the file they come from, their description, and what was decided."""

    path: Path
    info: DatasetInfo
    data: ArrayData
    code: str = ""
    """Hash of the Python code that made them."""

    @property
    def form(self) -> Literal["npz file", "python file", "own shards"]:
        """Return what kind of file it is, for ``codingbench data``."""
        if self.info.name.startswith(_TABLES):
            return "own shards"
        return "python file" if self.code else "npz file"

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change with any pixel or label, and with the code."""
        content = self.data.fingerprint()
        if not self.code:
            return content
        return hashlib.sha256(f"{content} made by {self.code}".encode()).hexdigest()[:16]

    def remark(self) -> str:
        """Return a line with all that was decided when the arrays were read."""
        return f"{self.info.name}: {'; '.join(self.data.notes)}"


def is_own_arrays(name: str) -> bool:
    """Return whether a name is that of a .npz file, of tables, or of something in a Python file."""
    return name.endswith(".npz") or name.startswith(_TABLES) or is_python(name)


def is_python(name: str) -> bool:
    """Return whether a name stands for something in a Python file, which is run to load it."""
    return _PYTHON in name


def own_arrays(name: str, data_dir: Path | None) -> OwnArrays:
    """Open the data set of a name for which :func:`is_own_arrays` is true.

    Raises:
        SpecError: the name cannot stand in tables, or the Python file cannot be run.
        DatasetError: there is no such file, or it does not hold images and labels.
    """
    if name.startswith(_TABLES):
        start, _, text = name.partition(":")
        if not text.strip():
            raise SpecError(f"{name!r} has no path, expected {start}:PATH")
        folder = found_path(text.strip(), name, data_dir, Path.is_dir, "folder")
        return _from_tables(folder, f"{start}:")
    if is_python(name):
        file, _, attribute = name.rpartition(":")
        if not attribute.isidentifier():
            raise SpecError(f"{name!r}: expected FILE.py:NAME with the name of a class or function")
        return _from_python(found_path(file, name, data_dir, Path.is_file, "file"), attribute)
    path = found_path(name, name, data_dir, Path.is_file, "file")
    try:
        about = path.stat()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    return _from_npz(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=2)
def _from_npz(path: Path, mtime_ns: int, size: int) -> OwnArrays:
    """Read this version of a file."""
    from codingbench.datasets.npz import read_npz

    data = read_npz(path)
    return OwnArrays(path, data.info(path.name, str(path)), data)


def _from_tables(folder: Path, start: str) -> OwnArrays:
    from codingbench.datasets.tables import PARQUET, saved_files, shard_files

    try:
        files = shard_files(folder) if start == PARQUET else saved_files(folder)
        about = [(split, path, path.stat()) for split, paths in files.items() for path in paths]
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror}") from error
    versions = tuple((split, path, found.st_mtime_ns) for split, path, found in about)
    return _read_tables(folder, start, versions)


@lru_cache(maxsize=2)
def _read_tables(
    folder: Path, start: str, versions: tuple[tuple[str, Path, int], ...]
) -> OwnArrays:
    """Read these versions of the files."""
    from codingbench.datasets.tables import PARQUET, read_tables

    files: dict[str, list[Path]] = {}
    for split, path, _ in versions:
        files.setdefault(split, []).append(path)
    data = read_tables(files, folder, is_parquet=start == PARQUET)
    info = data.info(f"{start}{folder.name}", f"{start}{folder}")
    return OwnArrays(versions[0][1], info, data)


def _from_python(path: Path, attribute: str) -> OwnArrays:
    from codingbench.datasets.python_data import code_of, read_python

    code = code_of(path)
    data = read_python(path, attribute, code)
    info = data.info(f"{path.name}:{attribute}", f"{path}:{attribute}")
    return OwnArrays(path, info, data, code)


def found_path(
    text: str, name: str, data_dir: Path | None, is_there: Callable[[Path], bool], kind: str
) -> Path:
    """Return the path of a file or folder: inside the folder of data sets, itself, or elsewhere.

    Args:
        text: the path as the user wrote it.
        name: the whole name, for messages.
        data_dir: the folder of data sets; None: that of ``CODINGBENCH_DATA_DIR``, if any.
        is_there: tells whether a path is a file, or a folder.
        kind: ``file`` or ``folder``, for messages.

    Raises:
        SpecError: the last part of the path cannot be used as a name in tables.
        DatasetError: there is no such file or folder.
    """
    path = Path(os.path.expanduser(text))  # leaves an unknown ~user as it is
    looked = [path]
    if folder := data_folder(data_dir):
        itself = folder.absolute()
        looked = [folder / path, *([itself] if itself.name == text else []), path]
    for place in looked:
        if _is_there(place, is_there):
            found = user_path(place)
            if not found.name.isprintable() or set(found.name) & set("[],|") or not found.name:
                reason = f"its last part must be a printable name without any of [ ] , |: {found}"
                raise SpecError(f"{name!r} cannot name a data set: {reason}")
            return found
    places = " or ".join(map(str, dict.fromkeys(looked)))
    expected = ", expected class folders in it" if name.startswith("folder:") else ""
    raise DatasetError(f"{name}: there is no {kind} {places}{expected}")


def _is_there(place: Path, is_there: Callable[[Path], bool]) -> bool:
    try:
        return is_there(place)
    except (OSError, ValueError):  # names that are too long, or hold null bytes
        return False
