"""Images and labels in a file that ``numpy.savez`` or ``numpy.savez_compressed`` wrote.

Files may come from untrusted sources: pickled objects are refused, and the expanded size is
checked before any array is read.
"""

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from codingbench.datasets.arrays import ArrayData, array_data, role_of
from codingbench.datasets.regular import check_size
from codingbench.errors import DatasetError, one_line

MOST_FILE_BYTES: Final = 2**32
FREE_BYTES: Final = 2**28
"""Expanded size that is always allowed; beyond it, 100 times the size of the file."""

_MOST_ARRAYS: Final = 1000


def read_npz(path: Path) -> ArrayData:
    """Read the images and labels of a file.

    Raises:
        DatasetError: the file is damaged, too large when expanded, holds pickled objects, or its
            arrays are not images and labels.
    """
    check_size(path, MOST_FILE_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _arrays(archive, path)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"{path} is broken: {one_line(error)}") from error
    except (NotImplementedError, RuntimeError, MemoryError) as error:  # encrypted, unknown method
        raise DatasetError(f"{path} cannot be read: {one_line(error)}") from error
    return array_data(arrays, str(path))


def _arrays(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    members = [found for found in archive.infolist() if found.filename.endswith(".npy")]
    if len(members) > _MOST_ARRAYS:
        raise ValueError(f"{len(members):,} arrays, expected at most {_MOST_ARRAYS:,}")
    used = {found.filename.removesuffix(".npy"): found for found in members}
    used = {name: found for name, found in used.items() if role_of(name)} or used
    most = max(FREE_BYTES, 100 * path.stat().st_size)
    if (expanded := sum(found.file_size for found in used.values())) > most:
        raise ValueError(f"it expands to {expanded:,} bytes, expected at most {most:,}")
    arrays: dict[str, Any] = {}
    for name, found in used.items():
        with archive.open(found) as file:
            arrays[name] = _array(file, name, found.file_size)
    return arrays


def _array(file: IO[bytes], name: str, size: int) -> np.ndarray:
    """Read an array after comparing its header with the size of the member."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which are never unpickled")
    needed = math.prod(shape) * dtype.itemsize
    if needed > size:
        raise ValueError(f"the header of {name} announces {needed:,} bytes, but it has {size:,}")
    content = file.read(needed)
    if len(content) != needed:
        raise ValueError(f"{name} has {len(content):,} bytes of content, expected {needed:,}")
    array = np.frombuffer(content, dtype)
    return array.reshape(shape[::-1]).T if is_fortran else array.reshape(shape)
