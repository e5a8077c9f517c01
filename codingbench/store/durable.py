"""Write files completely or not at all, so that they survive a power cut."""

import contextlib
import os
import secrets
from pathlib import Path


def write_durably(path: Path, data: bytes | memoryview) -> None:
    """Replace the content of a file: a reader sees the old content or the new, never a part of it.

    The bytes are written to a hidden file beside it and synced; the file is renamed and the folder
    synced. The folder must exist.

    Raises:
        OSError: the bytes cannot be written, for instance because the disk is full. The old file
            is then unchanged.
    """
    temporary = temporary_beside(path)
    try:
        write_through(temporary, data)
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        discard(temporary)


def temporary_beside(path: Path) -> Path:
    """Return a new hidden path in the same folder, for a file to be renamed to ``path``."""
    return path.with_name(f".{path.stem}-{secrets.token_hex(4)}.tmp")


def write_through(path: Path, data: bytes | memoryview) -> None:
    """Write a file and wait until its bytes are on the disk.

    Raises:
        OSError: the bytes cannot be written, for instance because the disk is full.
    """
    with path.open("wb", buffering=0) as file:
        view = memoryview(data)
        while view:  # an unbuffered write may write only some of the bytes
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def remove_durably(path: Path) -> None:
    """Remove a file if it exists, and wait until that is on the disk.

    Raises:
        OSError: the file cannot be removed.
    """
    if path.exists():
        path.unlink(missing_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until a rename is on the disk. It is only once the folder itself has been synced."""
    if os.name != "posix":
        return  # Windows cannot open a folder; its file system journals renames
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove a file if it exists, ignoring errors, which would hide the one being handled."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
