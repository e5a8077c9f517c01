"""Readers of the archives that data sets are handed out as: idx files (MNIST), CIFAR's pickles.

They may come from strangers. Nothing is extracted to disk; what a compressed file expands to is
bounded while it is read; of the pickles only the original ones are read, and only arrays in them.
"""

import gzip
import hashlib
import io
import math
import pickle
import tarfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8

from codingbench.datasets.images import EncodedSplit, broken, reading
from codingbench.errors import DatasetError

MOST_CIFAR_BYTES: Final = 2**29
"""Of CIFAR's archive, expanded: pixels, labels and file names are 190 MB in both data sets."""

_CIFAR_SHAPE: Final = (3, 32, 32)


def torchvision_class(name: str) -> Any:
    """The class of torchvision that knows a data set's files, addresses and md5 sums.

    Raises:
        DatasetError: torchvision does not import beside this torch.
    """
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"archives and downloads need torchvision, which does not import here ({reason});"
            " `codingbench doctor` says how to repair it"
        ) from error
    return getattr(torchvision.datasets, name)


# --- idx --------------------------------------------------------------------------------------


def read_idx(
    images_file: Path, labels_file: Path, shape: tuple[int, int, int], most_images: int
) -> EncodedSplit:
    """The images and labels of a pair of idx files, gzip-compressed or not.

    Not held to torchvision's md5 sums: other packagings of the same data compress it anew.

    Raises:
        DatasetError: a file is damaged, the two do not fit each other or ``shape``, or they hold
            more than ``most_images``.
    """
    images = _idx_array(images_file, most_images, shape[1:])
    labels = _idx_array(labels_file, most_images, ())
    if len(images) != len(labels):
        raise broken(images_file, f"{len(images)} images, but {labels_file} has {len(labels)}")
    return EncodedSplit(labels.astype(np.int64), lambda chosen: images[chosen][:, np.newaxis])


def _idx_array(path: Path, most: int, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """Entries of ``shape``, at most so many; what is announced is checked before it is read."""
    with reading(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        header = file.read(8 + 4 * len(shape))
        # 8 stands for unsigned bytes
        if len(header) < 8 + 4 * len(shape) or header[:4] != bytes((0, 0, 8, 1 + len(shape))):
            raise broken(path, f"not an idx file of bytes with {1 + len(shape)} axes")
        entries, *sizes = (int(size) for size in np.frombuffer(header, ">u4", offset=4))
        if tuple(sizes) != shape:
            expected, found = ("x".join(map(str, axes)) for axes in (shape, sizes))
            raise broken(path, f"expected {expected} pixels, got {found}")
        if entries > most:
            raise broken(path, f"{entries:,} entries announced, expected at most {most:,}")
        announced = entries * math.prod(shape)
        content = file.read(announced + 1)
    if len(content) != announced:
        found = f"{len(content)}" if len(content) < announced else f"more than {announced}"
        raise broken(path, f"{found} bytes of content, {announced} announced")
    return np.frombuffer(content, np.uint8).reshape(entries, *shape)


# --- CIFAR ------------------------------------------------------------------------------------


def read_cifar(files: Sequence[Path], class_name: str, split: str) -> EncodedSplit:
    """The pickled batches of CIFAR, from the one tar archive or from its extracted files.

    Every batch must have the md5 sum that torchvision's class ``class_name`` knows: a pickle is
    a program, and only the original one is run. What it calls is bounded besides.

    Raises:
        DatasetError: the archive or a batch is damaged, or torchvision does not import.
    """
    source = torchvision_class(class_name)
    sums = dict(source.train_list if split == "train" else source.test_list)
    pixels, labels = [], []
    for path, name, raw in _batches(files, source.base_folder, sums):
        if hashlib.md5(raw, usedforsecurity=False).hexdigest() != sums[name]:
            raise broken(path, f"the md5 sum of {name} is not {sums[name]}")
        batch = _unpickle(path, name, raw)
        pixels.append(batch["data"])
        labels += batch["fine_labels"] if "fine_labels" in batch else batch["labels"]
    images = np.concatenate(pixels).reshape(-1, *_CIFAR_SHAPE)
    return EncodedSplit(np.array(labels, np.int64), lambda chosen: images[chosen])


def _batches(
    files: Sequence[Path], folder: str, names: Iterable[str]
) -> Iterator[tuple[Path, str, bytes]]:
    """Path of the file on disk, name and content of every batch."""
    if files[0].name.endswith((".tar.gz", ".tgz")):
        members = _tar_members(files[0], {f"{folder}/{name}": name for name in names})
        for name in names:
            if name not in members:
                raise broken(files[0], f"it holds no file {folder}/{name}")
            yield files[0], name, members[name]
        return
    for path in files:
        with reading(path):
            raw = path.read_bytes()
        yield path, path.name, raw


def _tar_members(path: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    """The contents of the files of an archive that are wanted, by the name each is wanted under.

    Read from front to back and never extracted, so where a name or a link leads does not matter.
    """
    found: dict[str, bytes] = {}
    with (
        reading(path),
        _Bounded(path, MOST_CIFAR_BYTES) as expanded,
        tarfile.open(fileobj=expanded, mode="r|") as archive,
    ):
        for member in archive:
            if member.name not in wanted:
                continue
            if not member.isreg() or member.issparse():
                what = "a link, a device or full of holes"
                raise broken(path, f"{member.name} is {what}, expected a file")
            content = archive.extractfile(member)
            assert content is not None
            found[wanted[member.name]] = content.read()
            if len(found) == len(wanted):
                break
    return found


class _Bounded(gzip.GzipFile):
    """A gzip file of which so many expanded bytes can be read; what asks for more is refused.

    Tar archives announce sizes, and tarfile believes them.
    """

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path, "rb")
        self._most, self._left = most, most

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= self._left:
            raise ValueError(f"it expands to more than {self._most:,} bytes")
        content = super().read(size)
        self._left -= len(content)
        return content


class _ArraysOnly(pickle.Unpickler):
    """Makes arrays, and calls nothing but what numpy needs for them."""

    _CALLED: Final = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy.core.numeric", "_frombuffer"),
            ("numpy._core.numeric", "_frombuffer"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._CALLED:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, expected arrays alone")
        return super().find_class(module, name)


def _unpickle(path: Path, name: str, raw: bytes) -> dict[str, Any]:
    with warnings.catch_warnings():
        # the pickles of 2009 write a dtype's flag as 0 or 1, which numpy 2.4 deprecates
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        try:
            batch: dict[str, Any] = _ArraysOnly(io.BytesIO(raw), encoding="latin1").load()
        except pickle.UnpicklingError as error:
            raise broken(path, f"{name}: {error}") from error
    return batch
