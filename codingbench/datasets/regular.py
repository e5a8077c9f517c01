"""Checks of a file before it is read: files may come from untrusted sources."""

import hashlib
import stat
from pathlib import Path
from typing import Final

from codingbench.errors import DatasetError

MOST_BYTES: Final = 2**30
"""Size limit of a file. The largest file of the known data sets has 170 MB."""


def check_size(path: Path, most: int | None = None) -> None:
    """Check, before a file is opened, that it is a regular file of acceptable size.

    Args:
        path: of the file.
        most: largest number of bytes; None: ``MOST_BYTES``.

    Raises:
        DatasetError: it is not a regular file, has more than ``most`` bytes, or cannot be read.
    """
    try:
        about = path.stat()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(about.st_mode):  # reading a pipe could wait forever
        raise DatasetError(f"{path} is not a file")
    most = MOST_BYTES if most is None else most
    if about.st_size > most:
        size = f"{about.st_size:,} bytes, expected at most {most:,}"
        raise DatasetError(f"{path} has {size}")


def digest(path: Path) -> bytes:
    """Return the SHA-256 of a file.

    Raises:
        DatasetError: it is not a regular file, is too large, or cannot be read.
    """
    check_size(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
