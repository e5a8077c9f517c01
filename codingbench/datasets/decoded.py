"""Decoded images of Parquet shards, kept in the user's cache folder.

A file holds all images of a split in the order of its shards: the format of ``numpy.save``, then
the SHA-256 of the pixels. Its name is a hash of the shards' bytes, so changed shards never get old
pixels. Labels are always read from the shards. Files are read as data, and nothing in them is
executed. Everything here is optional: where the folder cannot be used, images are decoded again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import filelock

from codingbench.datasets import files
from codingbench.datasets.files import Source
from codingbench.datasets.regular import digest
from codingbench.errors import one_line
from codingbench.store.durable import discard, temporary_beside

if TYPE_CHECKING:  # `codingbench doctor` works where numpy is broken
    from codingbench.datasets.decoding import Pixels

FORMAT: Final = 1
"""Raised when files are written, or images are decoded, in another way."""

MOST_BYTES: Final = 4 * 2**30
"""Size limit of the folder. The files that were not used for the longest time are removed."""

LOCK_WAIT_S: Final = 300
"""Longest time to wait for another process that decodes the same images."""

_DIGEST_BYTES: Final = 64
_STALE_S: Final = 86_400


def folder() -> Path:
    """Return the folder of decoded images, beside that of downloaded data sets."""
    return files.cache_folder().parent / "decoded"


def summary() -> str:
    """Say in one line where decoded images are kept, and how large they are."""
    megabytes = sum(size for _, size, _ in _listed()) / 1e6
    return (
        f"{megabytes:,.0f} MB of at most {MOST_BYTES / 1e6:,.0f} MB in {folder()}; may be removed"
    )


def decoded(
    source: Source, split: str, count: int, decode: Callable[[], Pixels], is_all: bool
) -> Pixels | None:
    """Return all images of a split, as a memory map of the cached file where there is one.

    Args:
        source: the located data set.
        split: ``train`` or ``test``.
        count: number of images in the split.
        decode: decodes all images.
        is_all: decode all images and keep them if they are not in the cache. If False, the result
            is then None: few images are decoded faster than all.

    Raises:
        DatasetError: a file of the data set cannot be read, or ``decode`` raised it.
    """
    shape = count, *source.info.shape
    path = folder() / f"{_key(source, split, shape)}.npy"
    kept = _read(path, shape)
    if kept is not None or not is_all:
        return kept
    with _lock(path):
        kept = _read(path, shape)  # another process may just have written it
        if kept is None:
            kept = decode()
            _write(path, kept)
        return kept


def _key(source: Source, split: str, shape: tuple[int, ...]) -> str:
    digests = b"".join(digest(path) for path in source.files[split])
    text = f"codingbench decoded images {FORMAT}, {split} {shape}: ".encode()
    return hashlib.sha256(text + digests).hexdigest()[:32]


def _read(path: Path, shape: tuple[int, ...]) -> Pixels | None:
    """Return the images of an intact file of this shape, else None."""
    import numpy as np

    try:
        if not path.is_file():
            return None
        images: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if (images.dtype, images.shape) != (np.uint8, shape) or not images.flags.c_contiguous:
            raise ValueError(f"it holds {images.dtype} of shape {images.shape}, expected {shape}")
        with path.open("rb") as file:
            file.seek(images.offset + images.nbytes)
            if file.read(_DIGEST_BYTES + 1) != _digest(images):
                raise ValueError("its content does not match its SHA-256")
        with suppress(OSError):
            os.utime(path)  # it was used now
    except (OSError, ValueError, EOFError) as error:
        _tell(f"decoded images in {path} are not used, and are decoded again: {one_line(error)}")
        return None
    mapped: Pixels = images
    return mapped


def _write(path: Path, images: Pixels) -> None:
    """Write the file completely or not at all."""
    import numpy as np

    _make_room(images.nbytes)
    temporary = temporary_beside(path)
    try:
        if images.nbytes > MOST_BYTES or images.nbytes > shutil.disk_usage(path.parent).free / 2:
            return
        with temporary.open("wb") as file:
            np.save(file, np.ascontiguousarray(images))
            file.write(_digest(images))
        os.replace(temporary, path)
    except OSError as error:
        _tell(f"decoded images are not kept in {path.parent}: {error.strerror}")
    finally:
        discard(temporary)


def _digest(images: Pixels) -> bytes:
    import numpy as np

    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest().encode()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process at a time decode these images, where the file system has locks."""
    lock = filelock.FileLock(path.with_suffix(".lock"), timeout=LOCK_WAIT_S)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, filelock.Timeout, NotImplementedError):
        pass  # images are then decoded twice, and writing them tells what is wrong
    try:
        yield
    finally:
        if lock.is_locked:
            discard(path.with_suffix(".lock"))
            lock.release()


def _make_room(needed: int) -> None:
    """Remove leftovers of killed writers, then the files that were not used for longest."""
    kept: list[tuple[float, int, Path]] = []
    for used, size, path in _listed():
        if path.suffix == ".tmp" and time.time() - used > _STALE_S:
            discard(path)
        else:
            kept.append((used, size, path))
    total = needed + sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if total <= MOST_BYTES:
            return
        discard(path)
        total -= size


def _listed() -> list[tuple[float, int, Path]]:
    """Return the time of the last use, the size and the path of every file of the folder."""
    found = []
    with suppress(OSError):
        for path in folder().iterdir():
            with suppress(OSError):  # another process may remove it
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
    return found


@cache
def _tell(line: str) -> None:
    """Print a line to stderr, once per process."""
    print(line, file=sys.stderr, flush=True)
