"""Readers of the forms in which image data sets lie on disk; every file is checked as it is read.

Three forms: Parquet shards in the Hugging Face layout, idx files (MNIST) and the pickled batches
of CIFAR. A reader gives the labels at once and decodes only the images that are asked for. What
is wrong with a file is one :class:`~codingbench.errors.DatasetError` that names the file.
"""

import gzip
import hashlib
import io
import math
import pickle
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from codingbench.errors import DatasetError

Labels = Int64[np.ndarray, "image"]
Pixels = UInt8[np.ndarray, "image channel height width"]

IMAGE_COLUMNS: Final = ("img", "image")
LABEL_COLUMNS: Final = ("fine_label", "label")

_UNREADABLE: Final = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,  # Pillow's word for a broken PNG
    zlib.error,
    tarfile.TarError,
    pa.ArrowException,
    Image.DecompressionBombError,
)


@dataclass(frozen=True, eq=False)
class Split:
    """The images (0 to 255) and labels (0 to K-1) of one split, image i belonging to label i."""

    images: UInt8[Tensor, "image channel height width"]
    labels: Int64[Tensor, "image"]


@dataclass(frozen=True, eq=False)
class EncodedSplit:
    """A split as it lies on disk: all labels, and a function from row numbers to pixels."""

    labels: Labels
    decode: Callable[[Labels], Pixels]


def broken(path: Path, reason: object) -> DatasetError:
    """One line that says what is wrong with the file at ``path``."""
    return DatasetError(f"{path} is broken: {' '.join(str(reason).split())}")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise broken(path, error) from error


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


# --- Parquet ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _RowGroup:
    """What can be read of a shard at a time."""

    shard: Path
    index: int
    first_row: int
    labels: Labels

    def encoded(self, rows: Labels) -> list[bytes]:
        """The image files in the given rows of the group."""
        with _reading(self.shard), pq.ParquetFile(self.shard) as shard:
            column = _column(self.shard, shard.schema_arrow.names, IMAGE_COLUMNS)
            group = shard.read_row_group(self.index, columns=[f"{column}.bytes"])
            structs = group.column(column).combine_chunks().take(pa.array(rows))
            return [content or b"" for content in structs.field("bytes").to_pylist()]


def read_parquet(shards: Sequence[Path], shape: tuple[int, int, int]) -> EncodedSplit:
    """Rows of all shards in order; images of ``shape`` (channel, height, width).

    Raises:
        DatasetError: a shard is damaged or lacks the columns; when decoding, an image is damaged
            or has another size or mode.
    """
    groups = [group for shard in shards for group in _row_groups(shard)]
    labels = np.concatenate([group.labels for group in groups] or [np.empty(0, np.int64)])

    def decode(chosen: Labels) -> Pixels:
        images = np.empty((len(chosen), *shape), np.uint8)
        start = 0
        for group in groups:
            stop = start + len(group.labels)
            places = np.flatnonzero((start <= chosen) & (chosen < stop))
            if places.size:
                images[places] = _decode_group(group, chosen[places] - start, shape)
            start = stop
        return images

    return EncodedSplit(labels, decode)


def _row_groups(path: Path) -> list[_RowGroup]:
    groups, first_row = [], 0
    with _reading(path), pq.ParquetFile(path) as shard:
        column = _label_column(path, shard.schema_arrow)
        for index in range(shard.num_row_groups):
            labels = shard.read_row_group(index, columns=[column]).column(column)
            if labels.null_count:
                raise broken(path, f"column {column!r} holds {labels.null_count} empty values")
            groups.append(_RowGroup(path, index, first_row, labels.to_numpy().astype(np.int64)))
            first_row += len(labels)
    return groups


def _label_column(path: Path, schema: pa.Schema) -> str:
    """The name of the label column, after both columns have been checked to be what is needed."""
    image = schema.field(_column(path, schema.names, IMAGE_COLUMNS))
    if not pa.types.is_struct(image.type) or image.type.get_field_index("bytes") < 0:
        raise broken(path, f"column {image.name!r} is {image.type}, expected struct{{bytes, path}}")
    label = schema.field(_column(path, schema.names, LABEL_COLUMNS))
    if not pa.types.is_integer(label.type):
        raise broken(path, f"column {label.name!r} is {label.type}, expected integers")
    return str(label.name)


def _column(path: Path, names: Sequence[str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in names:
            return name
    raise broken(path, f"no column {' or '.join(wanted)}, it has {', '.join(names) or 'none'}")


def _decode_group(group: _RowGroup, rows: Labels, shape: tuple[int, int, int]) -> Pixels:
    images = np.empty((len(rows), *shape), np.uint8)
    for place, (row, content) in enumerate(zip(rows, group.encoded(rows), strict=True)):
        try:
            images[place] = decode_image(content, shape)
        except _UNREADABLE as error:
            raise broken(group.shard, f"image in row {group.first_row + row}: {error}") from error
    return images


def decode_image(
    content: bytes, shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "channel height width"]:
    """The pixels of an image file of ``shape`` (channel, height, width).

    Raises:
        ValueError: the image has another size or colour mode.
        OSError, SyntaxError: the file is not a whole image.
    """
    channels, height, width = shape
    mode = {1: "L", 3: "RGB"}[channels]
    try:
        image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        # Pillow's own message is the address of a buffer
        raise ValueError(f"the {len(content)} bytes are no image file") from None
    with image:
        if (image.mode, image.height, image.width) != (mode, height, width):
            raise ValueError(
                f"expected {mode} of {width}x{height} pixels,"
                f" got {image.mode} of {image.width}x{image.height}"
            )
        return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


# --- idx --------------------------------------------------------------------------------------


def read_idx(images_file: Path, labels_file: Path, shape: tuple[int, int, int]) -> EncodedSplit:
    """The images and labels of a pair of idx files, gzip-compressed or not.

    Not held to torchvision's md5 sums: other packagings of the same data compress it anew.

    Raises:
        DatasetError: a file is damaged, or the two do not fit each other or ``shape``.
    """
    images, labels = _idx_array(images_file, 3), _idx_array(labels_file, 1)
    if images.shape[1:] != shape[1:]:
        found = "x".join(map(str, images.shape[1:]))
        raise broken(images_file, f"expected {shape[1]}x{shape[2]} pixels, got {found}")
    if len(images) != len(labels):
        raise broken(images_file, f"{len(images)} images, but {labels_file} has {len(labels)}")
    return EncodedSplit(labels.astype(np.int64), lambda chosen: images[chosen][:, np.newaxis])


def _idx_array(path: Path, num_axes: int) -> UInt8[np.ndarray, "..."]:
    with _reading(path):
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    header = 4 + 4 * num_axes
    # 8 stands for unsigned bytes
    if len(raw) < header or raw[:4] != bytes((0, 0, 8, num_axes)):
        raise broken(path, f"not an idx file of bytes with {num_axes} axes")
    sizes = [int(size) for size in np.frombuffer(raw, ">u4", num_axes, offset=4)]
    array = np.frombuffer(raw, np.uint8, offset=header)
    if array.size != math.prod(sizes):
        shape = "x".join(map(str, sizes))
        raise broken(path, f"{array.size} bytes of content, {shape} announced")
    return array.reshape(sizes)


# --- CIFAR ------------------------------------------------------------------------------------


def read_cifar(files: Sequence[Path], class_name: str, split: str) -> EncodedSplit:
    """The pickled batches of CIFAR, from the one tar archive or from its extracted files.

    Every batch must have the md5 sum that torchvision's class ``class_name`` knows: a pickle is
    a program, and only the original one is run.

    Raises:
        DatasetError: the archive or a batch is damaged, or torchvision does not import.
    """
    source = torchvision_class(class_name)
    sums = dict(source.train_list if split == "train" else source.test_list)
    pixels, labels = [], []
    for path, name, raw in _batches(files, source.base_folder, sums):
        if hashlib.md5(raw, usedforsecurity=False).hexdigest() != sums[name]:
            raise broken(path, f"the md5 sum of {name} is not {sums[name]}")
        batch = _unpickle(raw)
        pixels.append(batch["data"])
        labels += batch["fine_labels"] if "fine_labels" in batch else batch["labels"]
    images = np.concatenate(pixels).reshape(-1, 3, 32, 32)
    return EncodedSplit(np.array(labels, np.int64), lambda chosen: images[chosen])


def _batches(
    files: Sequence[Path], folder: str, names: Iterable[str]
) -> Iterator[tuple[Path, str, bytes]]:
    """Path of the file on disk, name and content of every batch."""
    if files[0].name.endswith((".tar.gz", ".tgz")):
        yield from _tar_members(files[0], folder, names)
        return
    for path in files:
        with _reading(path):
            raw = path.read_bytes()
        yield path, path.name, raw


def _tar_members(
    path: Path, folder: str, names: Iterable[str]
) -> Iterator[tuple[Path, str, bytes]]:
    with _reading(path), tarfile.open(path) as archive:
        for name in names:
            try:
                member = archive.extractfile(f"{folder}/{name}")
            except KeyError:
                member = None
            if member is None:
                raise broken(path, f"it holds no file {folder}/{name}")
            yield path, name, member.read()


def _unpickle(raw: bytes) -> dict[str, Any]:
    with warnings.catch_warnings():
        # the pickles of 2009 write a dtype's flag as 0 or 1, which numpy 2.4 deprecates
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        batch: dict[str, Any] = pickle.loads(raw, encoding="latin1")
    return batch
