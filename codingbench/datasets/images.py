"""What training asks of a split; reader of Parquet shards, and what all readers of images share.

A reader gives the labels at once and decodes only the images that are asked for. Every file is
checked as it is read, for it may come from strangers: nothing in it is executed, and what would
expand beyond what the data set has is refused before it does. What is wrong with a file is one
:class:`~codingbench.errors.DatasetError` that names the file. The other forms are read by
:mod:`codingbench.datasets.archives`.
"""

import io
import math
import tarfile
import warnings
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
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from codingbench.datasets.crops import Crops, crop_batch
from codingbench.datasets.files import check_size
from codingbench.datasets.pixels import onto
from codingbench.errors import DatasetError, one_line

Labels = Int64[np.ndarray, "image"]
Pixels = UInt8[np.ndarray, "image channel height width"]

IMAGE_COLUMNS: Final = ("img", "image")
LABEL_COLUMNS: Final = ("fine_label", "label")

_FORMATS: Final = ("PNG", "JPEG")
"""What Pillow may take an image for: among all it knows are some that it has programs run for."""

_UNREADABLE: Final = (
    OSError,
    EOFError,
    ValueError,
    KeyError,  # pyarrow's, for a column that the footer does not name
    zlib.error,
    tarfile.TarError,
    pa.ArrowException,
)


Batch = tuple[UInt8[Tensor, "batch channel height width"], Int64[Tensor, "batch"]]
"""Images (0 to 255) and their labels (0 to K-1), on the split's device."""


class ImageSplit(Protocol):
    """What training and evaluation ask of a split, wherever its images are."""

    @property
    def labels(self) -> Int64[Tensor, "image"]:
        """Of all images, on the split's device."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""

    def batches(
        self, size: int, order: Int64[Tensor, "place"] | None = None, crops: Crops | None = None
    ) -> Iterator[Batch]:
        """The images of these numbers, ``size`` at a time, the last of what is left.

        Args:
            order: numbers of images, on the CPU; None: all of them as they come.
            crops: one for each place of the order; None: images as they are evaluated.

        Raises:
            DatasetError: a file is broken.
        """

    def subset(self, chosen: Int64[Tensor, "place"]) -> Self:
        """The images of these numbers, which become 0, 1, ..."""

    def to(self, device: torch.device) -> Self:
        """The same images, whose batches are on ``device``."""


@dataclass(frozen=True, eq=False)
class Split:
    """The images (0 to 255) and labels (0 to K-1) of one split, image i belonging to label i."""

    images: UInt8[Tensor, "image channel height width"]
    labels: Int64[Tensor, "image"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """See :class:`ImageSplit`, as for the methods."""
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
    """In parts of ``size``; torch's own ``split`` makes one empty part of nothing."""
    return order.split(size) if len(order) else ()


def _bounds(count: int, size: int) -> tuple[range, range]:
    """Where each part of ``size`` begins, and where the next one does."""
    return range(0, count, size), range(size, count + size, size)


@dataclass(frozen=True, eq=False)
class EncodedSplit:
    """A split as it lies on disk: all labels, and a function from row numbers to pixels."""

    labels: Labels
    decode: Callable[[Labels], Pixels]


def broken(path: Path, reason: object) -> DatasetError:
    """One line that says what is wrong with the file at ``path``."""
    return DatasetError(f"{path} is broken: {' '.join(str(reason).split())}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Refuse a file that is too large; what goes wrong inside is one line that names the file.

    Raises:
        DatasetError: whatever the file system or a decoder raises.
    """
    check_size(path)
    try:
        yield
    except _UNREADABLE as error:
        raise broken(path, error) from error


# --- Parquet ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _RowGroup:
    """What can be read of a shard at a time."""

    shard: Path
    column: str  # of the images
    index: int
    first_row: int
    labels: Labels

    def encoded(self, rows: Labels, most_bytes: int) -> list[bytes]:
        """The image files in the given rows of the group, each of at most ``most_bytes``."""
        name = f"{self.column}.bytes"
        # As a dictionary: one large image repeated in every row stays one.
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
    shards: Sequence[Path], shape: tuple[int, int, int], most_images: int
) -> EncodedSplit:
    """Rows of all shards in order; images of ``shape`` (channel, height, width).

    Raises:
        DatasetError: a shard is damaged or lacks the columns, or there are more than
            ``most_images`` rows; when decoding, an image is damaged or has another size or mode,
            or its file is larger than any of that shape.
    """
    groups: list[_RowGroup] = []
    for shard in shards:
        groups += _row_groups(shard, most_images - sum(len(group.labels) for group in groups))
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


def _row_groups(path: Path, most_images: int) -> list[_RowGroup]:
    groups, first_row = [], 0
    with reading(path), pq.ParquetFile(path, page_checksum_verification=True) as shard:
        image, label = _columns(path, shard.schema_arrow)
        about = [shard.metadata.row_group(index) for index in range(shard.num_row_groups)]
        # A file of a few bytes can announce any number of rows.
        announced = sum(max(group.num_rows, 0) for group in about)
        if announced > most_images or announced != shard.metadata.num_rows:
            raise broken(path, f"{announced:,} images announced, expected at most {most_images:,}")
        for index, group in enumerate(about):
            if _column_chunk(group, label).total_uncompressed_size > 64 * (group.num_rows + 64):
                raise broken(path, f"column {label!r} expands to more than labels take")
            labels = shard.read_row_group(index, columns=[label]).column(label)
            if labels.null_count:
                raise broken(path, f"column {label!r} holds {labels.null_count} empty values")
            numbers = labels.to_numpy().astype(np.int64)
            groups.append(_RowGroup(path, image, index, first_row, numbers))
            first_row += len(labels)
    return groups


def _column_chunk(group: Any, name: str) -> Any:
    """What a row group says of the column of that path."""
    chunks = [group.column(index) for index in range(group.num_columns)]
    for chunk in chunks:
        if chunk.path_in_schema == name:
            return chunk
    raise ValueError(f"a row group without column {name!r}")


def _columns(path: Path, schema: pa.Schema) -> tuple[str, str]:
    """The names of the image and the label column, both checked to be of the types needed."""
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
    raise broken(path, f"no column {' or '.join(wanted)}, it has {', '.join(names) or 'none'}")


def _decode_group(group: _RowGroup, rows: Labels, shape: tuple[int, int, int]) -> Pixels:
    images = np.empty((len(rows), *shape), np.uint8)
    contents = group.encoded(rows, most_bytes(shape))
    for place, (row, content) in enumerate(zip(rows, contents, strict=True)):
        try:
            images[place] = decode_image(content, shape)
        except ValueError as error:
            raise broken(group.shard, f"image in row {group.first_row + row}: {error}") from error
    return images


def most_bytes(shape: tuple[int, int, int]) -> int:
    """Of the file of an image: its pixels four times, and what a format says besides."""
    return 4 * math.prod(shape) + 4096


def decode_image(
    content: bytes, shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "channel height width"]:
    """The pixels of a PNG or JPEG file of ``shape`` (channel, height, width).

    Raises:
        ValueError: the file is not a whole image, or of another size or colour mode; that is
            found before any pixel is decoded.
    """
    channels, height, width = shape
    mode = {1: "L", 3: "RGB"}[channels]
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            # of many pixels, said before they are compared with those expected
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            found = image.mode, image.height, image.width
            if found == (mode, height, width):
                pixels = np.asarray(image).reshape(height, width, channels)
                return pixels.transpose(2, 0, 1)
    except UnidentifiedImageError:
        # Pillow's own message is the address of a buffer
        raise ValueError(f"the {len(content)} bytes are no image file, PNG or JPEG") from None
    except Exception as error:  # Pillow does not say which kinds
        raise ValueError(one_line(error)) from error
    raise ValueError(
        f"expected {mode} of {width}x{height} pixels, got {found[0]} of {found[2]}x{found[1]}"
    )
