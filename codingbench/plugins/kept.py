"""Sources of plug-ins that are kept with results, so that their cells can be loaded again.

``<results>/plugins/<code>/`` holds the files of the plug-in with that hash, in folders as Python
imports them, and ``plugin.json``, which names the class and the SHA-256 of every file. Plug-ins
that ship with codingbench are not kept. Reading a source executes nothing.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from codingbench.errors import StoreError
from codingbench.plugins.code import is_of_file, own_files_of, source_of

FOLDER: Final = "plugins"
"""The folder, inside that of the results, which holds the sources of plug-ins."""

MANIFEST: Final = "plugin.json"
MOST_BYTES: Final = 4 * 2**20
"""Largest size of all files of a plug-in together."""
_MOST_FILES: Final = 200
_CODE: Final = re.compile(r"[0-9a-f]{12}")
_NAME: Final = re.compile(r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]*")
"""Names of files and folders: no separator, no control character, no leading dot."""


@dataclass(frozen=True)
class Source:
    """The files of a plug-in.

    Args:
        class_name: name of the class.
        place: its file, such as ``dct.py``, or the import name of its module, ``pack.codings``.
        files: the content of each file, by its path below the folder, with ``/``.
    """

    class_name: str
    place: str
    files: dict[str, bytes]

    @property
    def file(self) -> str:
        """Path of the file that defines the class, below the folder."""
        if self.place in self.files:
            return self.place
        start = self.place.replace(".", "/")
        return next(name for name in self.files if name in (f"{start}.py", f"{start}/__init__.py"))

    def manifest(self) -> bytes:
        """Return the content of ``plugin.json``."""
        hashes = {name: hashlib.sha256(self.files[name]).hexdigest() for name in sorted(self.files)}
        described = {"class": self.class_name, "place": self.place, "files": hashes}
        return f"{json.dumps(described, indent=2)}\n".encode()

    @property
    def digest(self) -> str:
        """The SHA-256 of all that the source holds, in hexadecimal digits."""
        return hashlib.sha256(self.manifest()).hexdigest()


def gathered(cls: type) -> Source:
    """Return the source of a plug-in: the files of its hash that do not ship with codingbench.

    Raises:
        StoreError: the files are too large to be kept.
        OSError: a file cannot be read.
    """
    files, main = own_files_of(cls), Path(source_of(cls))
    if sum(file.stat().st_size for file in files) > MOST_BYTES:
        raise StoreError(f"the files of {cls.__name__} are larger than {MOST_BYTES:,} bytes")
    by_file = is_of_file(cls)
    place = main.name if by_file else cls.__module__
    depth = 0 if by_file else place.count(".") + (main.stem == "__init__")
    root, loaded = main.parents[depth], _loaded_names(files)
    content = {
        main.name if by_file and file == main else _path_of(file, root, loaded): file.read_bytes()
        for file in files
    }
    # Without the file, a package of the same name elsewhere would be imported instead.
    packages = {} if by_file else dict.fromkeys(_packages(place, root), b"")
    return Source(cls.__name__, place, packages | content)


def write(source: Source, folder: Path) -> None:
    """Write a source into ``folder``, whole or not at all, unless there is a sound one already.

    Raises:
        OSError: the folder cannot be written.
    """
    if is_sound(folder):
        return
    temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}.tmp")
    try:
        for name, content in source.files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (temporary / MANIFEST).write_bytes(source.manifest())
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    except OSError:
        if not is_sound(folder):  # otherwise another process has just written it
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read(folder: Path) -> Source:
    """Read a source as data, and compare the files with their hashes.

    Raises:
        StoreError: the folder, its ``plugin.json`` or a file is missing, damaged, altered, too
            large, or has a name that leads elsewhere.
    """
    try:
        source = _read(folder, json.loads(_content(folder / MANIFEST, 2**20)))
    except OSError as error:
        raise StoreError(f"cannot read {str(error.filename)!r}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration, RecursionError):
        raise StoreError(f"{str(folder / MANIFEST)!r} does not describe a plug-in") from None
    return source


def is_sound(folder: Path) -> bool:
    """Return whether the folder holds a source that can be read."""
    try:
        read(folder)
    except StoreError:
        return False
    return True


def folders(results: Path) -> list[Path]:
    """Return the folders of all sources that are kept with results."""
    inside = results / FOLDER
    found = inside.iterdir() if inside.is_dir() else iter(())
    return sorted(path for path in found if is_code(path.name) and path.is_dir())


def folder_of(results: Path, code: object) -> Path | None:
    """Return the folder of the plug-in with that hash, or None if its source is not kept."""
    path = results / FOLDER / str(code)
    return path if is_code(code) and path.is_dir() else None


def is_code(code: object) -> bool:
    """Return whether a value has the form of a plug-in's hash: 12 hexadecimal digits."""
    return isinstance(code, str) and _CODE.fullmatch(code) is not None


def _read(folder: Path, described: Any) -> Source:
    class_name, place, hashes = (described[name] for name in ("class", "place", "files"))
    if not (class_name.isidentifier() and 0 < len(hashes) <= _MOST_FILES):
        raise ValueError
    files, left = {}, MOST_BYTES
    for name, expected in hashes.items():
        if not all(map(_NAME.fullmatch, PurePosixPath(name).parts)):
            raise ValueError
        files[name] = _content(folder / name, left)
        left -= len(files[name])
        if hashlib.sha256(files[name]).hexdigest() != expected:
            raise StoreError(f"{str(folder / name)!r} was altered: its hash is another one")
    source = Source(class_name, place, files)
    if not _is_place(source.place) or not source.file:
        raise ValueError
    return source


def _is_place(place: str) -> bool:
    name = place.removesuffix(".py")
    return all(map(str.isidentifier, name.split("."))) or _NAME.fullmatch(place) is not None


def _content(path: Path, most: int) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise StoreError(f"{str(path)!r} is missing, or is not a file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise StoreError(f"{str(path)!r} is too large for a plug-in")
    return content


def _loaded_names(files: Sequence[Path]) -> dict[str, str]:
    """Return the names under which the files are imported, as far as they are loaded."""
    wanted = {os.path.abspath(file) for file in files}
    names: dict[str, str] = {}
    for name, module in [*sys.modules.items()]:
        path = getattr(module, "__file__", None)
        if path and name not in ("__main__", "__mp_main__") and os.path.abspath(path) in wanted:
            names.setdefault(os.path.abspath(path), name)
    return names


def _path_of(file: Path, root: Path, loaded: dict[str, str]) -> str:
    """Return the place of a file below the folder, where Python finds it under its name."""
    name = loaded.get(os.path.abspath(file))
    if name and not is_of_file(name):
        folders = name.split(".") if file.stem == "__init__" else name.split(".")[:-1]
        return "/".join([*folders, file.name])
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def _packages(module: str, root: Path) -> Iterator[str]:
    """Yield the ``__init__.py`` of each package around a module that has one."""
    parts = module.split(".")
    for end in range(1, len(parts)):
        name = "/".join([*parts[:end], "__init__.py"])
        if (root / name).is_file():
            yield name
