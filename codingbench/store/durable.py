"""Files that are written whole or not at all, and are still there after a power cut."""

import contextlib
import os
import secrets
from pathlib import Path


def write_durably(path: Path, data: bytes | memoryview) -> None:
    """Replace ``path`` by ``data``: a reader sees the old file or the new one, never a part.

    The bytes are written beside the file, under a name with a leading dot that no reader of the
    folder looks at, synced, renamed, and the folder synced. The folder must exist.

    Raises:
        OSError: the disk is full or refuses; what was at ``path`` is then still there.
    """
    temporary = temporary_beside(path)
    try:
        write_through(temporary, data)
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        discard(temporary)


def temporary_beside(path: Path) -> Path:
    """A new hidden name in the same folder, for what is to be renamed to ``path``."""
    return path.with_name(f".{path.stem}-{secrets.token_hex(4)}.tmp")


def write_through(path: Path, data: bytes | memoryview) -> None:
    """Write and wait until the bytes are on the disk.

    Raises:
        OSError: the disk is full or refuses.
    """
    with path.open("wb", buffering=0) as file:
        view = memoryview(data)
        while view:  # an unbuffered write may take only a part
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until a rename is on the disk: it survives a power cut only once its folder is there."""
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened, and the rename itself is journalled
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove what may not be there, silently: an error on its way out matters more."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
