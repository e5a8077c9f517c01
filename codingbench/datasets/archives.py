"""Readers of archives: idx files (MNIST, Fashion-MNIST) and the pickles of CIFAR.

Files may come from untrusted sources. Nothing is extracted to disk, and the expanded size is
bounded while reading. Only the original pickles are loaded, and they may only hold arrays.
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
"""Size limit of CIFAR's archive when expanded. Both data sets have 190 MB."""

_CIFAR_SHAPE: Final = (3, 32, 32)


def torchvision_class(name: str) -> Any:
    """Return the class of torchvision with a data set's file names, addresses and md5 sums.

    Raises:
        DatasetError: torchvision cannot be imported with the installed torch.
    """
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"archives and downloads need torchvision, which cannot be imported ({reason});"
            " `codingbench doctor` explains how to repair it"
        ) from error
    return getattr(torchvision.datasets, name)


# --- idx --------------------------------------------------------------------------------------


def read_idx(
    images_file: Path, labels_file: Path, shape: tuple[int, int, int], most_images: int
) -> EncodedSplit:
    """Read the images and labels of a pair of idx files, compressed with gzip or not.

    The md5 sums in torchvision are not compared, because other distributors of the same data
    compress it differently.

    Args:
        images_file: idx file of the images.
        labels_file: idx file of the labels.
        shape: expected channels, height and width.
        most_images: largest number of images.

    Raises:
        DatasetError: a file is damaged, has another shape or too many entries, or the two files
            have different numbers of entries.
    """
    images = _idx_array(images_file, most_images, shape[1:])
    labels = _idx_array(labels_file, most_images, ())
    if len(images) != len(labels):
        raise broken(images_file, f"{len(images)} images, but {labels_file} has {len(labels)}")
    return EncodedSplit(labels.astype(np.int64), lambda chosen: images[chosen][:, np.newaxis])


def _idx_array(path: Path, most: int, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """Read at most ``most`` entries of ``shape``, checking the header before the content."""
    with reading(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        header = file.read(8 + 4 * len(shape))
        # type code 8: unsigned bytes
        if len(header) < 8 + 4 * len(shape) or header[:4] != bytes((0, 0, 8, 1 + len(shape))):
            raise broken(path, f"expected an idx file of unsigned bytes with {1 + len(shape)} axes")
        entries, *sizes = (int(size) for size in np.frombuffer(header, ">u4", offset=4))
        if tuple(sizes) != shape:
            expected, found = ("x".join(map(str, axes)) for axes in (shape, sizes))
            raise broken(path, f"expected {expected} pixels, got {found}")
        if entries > most:
            raise broken(path, f"it states {entries:,} entries, expected at most {most:,}")
        size = entries * math.prod(shape)
        content = file.read(size + 1)
    if len(content) != size:
        found = f"{len(content)}" if len(content) < size else f"more than {size}"
        raise broken(path, f"it has {found} bytes of content, expected {size}")
    return np.frombuffer(content, np.uint8).reshape(entries, *shape)


# --- CIFAR ------------------------------------------------------------------------------------


def read_cifar(files: Sequence[Path], class_name: str, split: str) -> EncodedSplit:
    """Read the pickled batches of CIFAR, from the tar archive or from its extracted files.

    A pickle is a program, so every batch must have the md5 sum that torchvision's class
    ``class_name`` gives. In addition, a batch may only call functions that create arrays.

    Args:
        files: the archive, or the batches.
        class_name: name of the class in ``torchvision.datasets``.
        split: ``train`` or ``test``.

    Raises:
        DatasetError: the archive or a batch is damaged, or torchvision cannot be imported.
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
    """Yield the path of the file on disk, the name and the content of every batch."""
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
    """Read some files of an archive. ``wanted`` maps their paths in it to keys of the result.

    The archive is read from front to back and never extracted, so paths and links in it are
    harmless.
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
                what = "a link, a device or a sparse file"
                raise broken(path, f"{member.name} is {what}, expected a regular file")
            content = archive.extractfile(member)
            assert content is not None
            found[wanted[member.name]] = content.read()
            if len(found) == len(wanted):
                break
    return found


class _Bounded(gzip.GzipFile):
    """A gzip file from which only a limited number of expanded bytes can be read.

    tarfile trusts the sizes that an archive states.
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
    """An unpickler that only calls the functions numpy needs to create arrays."""

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
            raise pickle.UnpicklingError(f"it calls {module}.{name}, expected only arrays")
        return super().find_class(module, name)


def _unpickle(path: Path, name: str, raw: bytes) -> dict[str, Any]:
    with warnings.catch_warnings():
        # the pickles of 2009 store a flag of dtypes as 0 or 1, which numpy 2.4 deprecates
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        try:
            batch: dict[str, Any] = _ArraysOnly(io.BytesIO(raw), encoding="latin1").load()
        except pickle.UnpicklingError as error:
            raise broken(path, f"{name}: {error}") from error
    return batch
