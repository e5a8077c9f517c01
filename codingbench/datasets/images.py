"""Splits of images, and the reader of Parquet shards.

A reader returns all labels at once and decodes only the requested images. Files may come from
untrusted sources, so nothing in them is executed, and sizes are checked before anything is
expanded. An error in a file is a :class:`~codingbench.errors.DatasetError` that names the file.
Archives are read by :mod:`codingbench.datasets.archives`.
"""

import math
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from codingbench.datasets.class_names import LABEL_COLUMNS, Names, class_names, mapped, mapping
from codingbench.datasets.crops import Crops, crop_batch
from codingbench.datasets.decoding import Pixels, UndecodableError, decode_images
from codingbench.datasets.pixels import onto
from codingbench.datasets.regular import check_size
from codingbench.errors import DatasetError

Labels = Int64[np.ndarray, "image"]

IMAGE_COLUMNS: Final = ("img", "image")

_UNREADABLE: Final = (
    OSError,
    EOFError,
    ValueError,
    KeyError,  # raised by pyarrow for a column that is not in the footer
    zlib.error,
    tarfile.TarError,
    pa.ArrowException,
)


Batch = tuple[UInt8[Tensor, "batch channel height width"], Int64[Tensor, "batch"]]
"""Images (0 to 255) and their labels (0 to K - 1), on the device of the split."""


class ImageSplit(Protocol):
    """The interface of a split for training and evaluation, wherever its images are."""

    @property
    def labels(self) -> Int64[Tensor, "image"]:
        """The labels of all images, on the device of the split."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""

    def batches(
        self, size: int, order: Int64[Tensor, "place"] | None = None, crops: Crops | None = None
    ) -> Iterator[Batch]:
        """Yield batches of ``size`` images; the last batch may be smaller.

        Args:
            size: number of images in a batch.
            order: indices of the images, on the CPU; None: all images in their order.
            crops: one crop for each index in ``order``; None: whole images, as in evaluation.

        Raises:
            DatasetError: a file is broken.
        """

    def subset(self, chosen: Int64[Tensor, "place"]) -> Self:
        """Return a split with the images at these indices."""

    def to(self, device: torch.device) -> Self:
        """Return a split with the same images, whose batches are on ``device``."""


@dataclass(frozen=True, eq=False)
class Split:
    """A split in memory: images (0 to 255) and their labels (0 to K - 1)."""

    images: UInt8[Tensor, "image channel height width"]
    labels: Int64[Tensor, "image"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width; see :class:`ImageSplit`, also for the methods."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def batches(
        self, size: int, order: Int64[Tensor, "place"] | None = None, crops: Crops | None = None
    ) -> Iterator[Batch]:
        if order is None:
            parts: Iterator[Any] = map(slice, *_bounds(len(self.labels), size))
        else:
            parts = iter(split_order(onto(order, self.labels.device), size))
        for number, part in enumerate(parts):
            images = self.images[part]
            if crops is not None:
                images = crop_batch(images, crops.part(number * size, (number + 1) * size))
            yield images, self.labels[part]

    def subset(self, chosen: Int64[Tensor, "place"]) -> "Split":
        return Split(self.images[chosen], self.labels[chosen])

    def to(self, device: torch.device) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))


def split_order(order: Int64[Tensor, "place"], size: int) -> tuple[Tensor, ...]:
    """Split into parts of ``size``. ``torch.split`` would return one empty part for no images."""
    return order.split(size) if len(order) else ()


def _bounds(count: int, size: int) -> tuple[range, range]:
    """Return where each part of ``size`` begins and ends."""
    return range(0, count, size), range(size, count + size, size)


@dataclass(frozen=True, eq=False)
class EncodedSplit:
    """A split on disk: all labels, and a function that decodes the images in given rows."""

    labels: Labels
    decode: Callable[[Labels], Pixels]


def broken(path: Path, reason: object) -> DatasetError:
    """Return a one-line error about the file at ``path``."""
    return DatasetError(f"{path} is broken: {' '.join(str(reason).split())}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Check the size of a file, and turn errors inside the block into one line about the file.

    Raises:
        DatasetError: the file is too large, or the file system or a decoder raises an error.
    """
    check_size(path)
    try:
        yield
    except _UNREADABLE as error:
        raise broken(path, error) from error


# --- Parquet ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _RowGroup:
    """A row group of a shard: the unit in which it is read."""

    shard: Path
    column: str  # of the images
    index: int
    first_row: int
    first_image: int  # of the split
    labels: Labels

    def places(self, chosen: Labels) -> Labels:
        """Return the places in ``chosen`` whose images are in the group."""
        stop = self.first_image + len(self.labels)
        return np.flatnonzero((self.first_image <= chosen) & (chosen < stop))

    def encoded(self, rows: Labels, most_bytes: int) -> list[bytes]:
        """Return the image files in the given rows of the group, each of at most ``most_bytes``."""
        name = f"{self.column}.bytes"
        # Read as a dictionary, so that a large image repeated in every row is stored once.
        options = {"read_dictionary": [name], "page_checksum_verification": True}
        with reading(self.shard), pq.ParquetFile(self.shard, **options) as shard:
            chunk = _column_chunk(shard.metadata.row_group(self.index), name)
            if chunk.total_uncompressed_size > (len(self.labels) + 1) * most_bytes:
                raise ValueError(
                    f"{len(self.labels)} images expand to {chunk.total_uncompressed_size:,} bytes,"
                    f" expected at most {most_bytes:,} each"
                )
            group = shard.read_row_group(self.index, columns=[name])
            images = group.column(self.column).combine_chunks().field("bytes").take(pa.array(rows))
        longest = pc.max(pc.binary_length(images.dictionary)).as_py() or 0
        if longest > most_bytes:
            reason = f"an image of {longest:,} bytes, expected at most {most_bytes:,}"
            raise broken(self.shard, reason)
        return [content or b"" for content in images.to_pylist()]


def read_parquet(
    shards: Sequence[Path],
    shape: tuple[int, int, int],
    most_images: int,
    names: Names | None = None,
) -> EncodedSplit:
    """Read the labels of all shards in order; the images are decoded later.

    Args:
        shards: paths of the shards.
        shape: channels, height and width of the images.
        most_images: largest number of rows in all shards.
        names: names of the classes in the order of the labels; shards that state the same names in
            another order are renumbered. None: labels stay as they are.

    Raises:
        DatasetError: a shard is damaged, lacks a column, has too many rows or other classes. When
            decoding: an image is damaged, has another size or mode, or is too large for its shape.
    """
    groups: list[_RowGroup] = []
    for shard in shards:
        before = sum(len(group.labels) for group in groups)
        groups += _row_groups(shard, before, most_images - before, names)
    labels = np.concatenate([group.labels for group in groups] or [np.empty(0, np.int64)])

    def decode(chosen: Labels) -> Pixels:
        contents: list[bytes] = []
        places = []
        for group in groups:
            held = group.places(chosen)
            rows = chosen[held] - group.first_image
            contents += group.encoded(rows, most_bytes(shape)) if held.size else []
            places.append(held)
        order = np.concatenate([np.empty(0, np.int64), *places])
        try:
            decoded = decode_images(contents, shape)
        except UndecodableError as error:
            raise _undecodable(groups, int(chosen[order[error.index]]), error) from error
        images = np.empty_like(decoded)
        images[order] = decoded
        return images

    return EncodedSplit(labels, decode)


def names_in(path: Path) -> Names | None:
    """Return the names of the classes that a shard states, in the order of its labels; or None.

    Raises:
        DatasetError: the shard is damaged or lacks a column.
    """
    with reading(path), pq.ParquetFile(path) as shard:
        return class_names(shard.schema_arrow, _columns(path, shard.schema_arrow)[1])


def _row_groups(path: Path, before: int, most_images: int, names: Names | None) -> list[_RowGroup]:
    groups, first_row = [], 0
    with reading(path), pq.ParquetFile(path, page_checksum_verification=True) as shard:
        image, label = _columns(path, shard.schema_arrow)
        renumbered = mapping(path, class_names(shard.schema_arrow, label), names)
        about = [shard.metadata.row_group(index) for index in range(shard.num_row_groups)]
        # A file of a few bytes can state any number of rows.
        announced = sum(max(group.num_rows, 0) for group in about)
        if announced > most_images or announced != shard.metadata.num_rows:
            raise broken(path, f"it states {announced:,} images, expected at most {most_images:,}")
        for index, group in enumerate(about):
            if _column_chunk(group, label).total_uncompressed_size > 64 * (group.num_rows + 64):
                raise broken(path, f"column {label!r} is too large for labels")
            labels = shard.read_row_group(index, columns=[label]).column(label)
            if labels.null_count:
                raise broken(path, f"column {label!r} holds {labels.null_count} empty values")
            numbers = mapped(labels.to_numpy().astype(np.int64), renumbered)
            groups.append(_RowGroup(path, image, index, first_row, before + first_row, numbers))
            first_row += len(labels)
    return groups


def _column_chunk(group: Any, name: str) -> Any:
    """Return the metadata of the column with that path."""
    chunks = [group.column(index) for index in range(group.num_columns)]
    for chunk in chunks:
        if chunk.path_in_schema == name:
            return chunk
    raise ValueError(f"a row group has no column {name!r}")


def _columns(path: Path, schema: pa.Schema) -> tuple[str, str]:
    """Return the names of the image and label columns after checking their types."""
    image = schema.field(_column(path, schema.names, IMAGE_COLUMNS))
    index = image.type.get_field_index("bytes") if pa.types.is_struct(image.type) else -1
    if index < 0 or image.type.field(index).type not in (pa.binary(), pa.large_binary()):
        raise broken(path, f"column {image.name!r} is {image.type}, expected struct{{bytes, path}}")
    label = schema.field(_column(path, schema.names, LABEL_COLUMNS))
    if not pa.types.is_integer(label.type):
        raise broken(path, f"column {label.name!r} is {label.type}, expected integers")
    return str(image.name), str(label.name)


def _column(path: Path, names: Sequence[str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in names:
            return name
    raise broken(path, f"it has no column {' or '.join(wanted)}, but {', '.join(names) or 'none'}")


def _undecodable(groups: Sequence[_RowGroup], image: int, reason: object) -> DatasetError:
    """Return the error about an image, given by its number in the split."""
    group = next(g for g in groups if g.places(np.array([image])).size)
    row = group.first_row + image - group.first_image
    return broken(group.shard, f"image in row {row}: {reason}")


def most_bytes(shape: tuple[int, int, int]) -> int:
    """Return the size limit of an image file: four bytes per pixel value, and a header."""
    return 4 * math.prod(shape) + 4096
