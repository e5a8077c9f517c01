"""Arrays of images and labels, as users keep them, brought into one form.

Images become uint8 [N, C, H, W], labels whole numbers from 0. Everything that is decided on the
way, such as the order of the axes, is kept as a note, so that it can be said.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Int64, UInt8

from codingbench.datasets.description import DatasetInfo
from codingbench.errors import DatasetError

SPLIT_WORDS: Final = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
}
_IMAGES: Final = ("x", "image", "images", "img", "data")
_LABELS: Final = ("y", "label", "labels", "target", "targets")
WANTED: Final = "x and y, or x_train, y_train, x_test and y_test"

EVERY: Final = 5
"""Without a test split, every fifth image of each class, in the order of the data, is for it."""

TEST_NOTE: Final = (
    "it has no test split: every fifth image of each class, in order, is for the test"
)

MOST_CLASSES: Final = 2**15  # labels are 16 bits wide in the tables
_SIDES: Final = range(1, 2049)  # of an image, in pixels


@dataclass(frozen=True, eq=False)
class Part:
    """The images and labels of a split."""

    images: UInt8[np.ndarray, "image channel height width"]
    labels: Int64[np.ndarray, "image"]


@dataclass(frozen=True, eq=False)
class ArrayData:
    """A data set in memory; ``notes`` say what was decided when it was read."""

    train: Part
    test: Part
    num_classes: int
    notes: tuple[str, ...]

    def part(self, split: str) -> Part:
        """Return ``train`` or ``test``."""
        return self.train if split == "train" else self.test

    def info(self, name: str, address: str) -> DatasetInfo:
        """Describe the data set; the mean and std are those of all its training images."""
        _, channels, height, width = self.train.images.shape
        mean, std = moments(histogram(self.train.images), name)
        train_counts, test_counts = (
            np.bincount(part.labels, minlength=self.num_classes) for part in (self.train, self.test)
        )
        return DatasetInfo(
            name, name, self.num_classes, channels, height, width, mean, std,
            train_size=len(self.train.labels), test_size=len(self.test.labels),
            licence="unstated", about="your own arrays", address=address,
            balanced_train=int(train_counts.min()) * self.num_classes,
            balanced_test=int(test_counts.min()) * self.num_classes,
        )  # fmt: skip

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change with any pixel, label or split."""
        total = hashlib.sha256()
        for part in (self.train, self.test):
            total.update(repr(part.images.shape).encode())
            total.update(np.ascontiguousarray(part.images).data)
            total.update(part.labels.astype("<i8").tobytes())
        return total.hexdigest()[:16]


def array_data(given: Mapping[str, Any], place: str) -> ArrayData:
    """Bring named arrays into one form.

    Args:
        given: arrays by their names, such as ``x_train``; other names are not used.
        place: where they come from, for messages.

    Raises:
        DatasetError: arrays are missing, or are not images and labels of one data set.
    """
    notes: list[str] = []
    splits = _splits(given, place)
    if "train" not in splits:
        raise DatasetError(f"{place}: found {', '.join(map(str, given))}, expected {WANTED}")
    if "test" not in splits and "val" in splits:
        notes.append("the test images are its validation images")
        splits["test"] = splits.pop("val")
    if "val" in splits:
        notes.append("its validation images are not used")
    parts = [
        _part(*splits[split], f"{place}, {split}", notes)
        for split in ("train", "test")
        if split in splits
    ]
    if len({part[0].shape[1:] for part in parts}) > 1:
        shapes = " and ".join("x".join(map(str, images.shape[1:])) for images, _ in parts)
        raise DatasetError(f"{place}: training and test images differ in shape: {shapes}")
    return _numbered(parts, place, notes)


def role_of(name: str) -> tuple[str, str] | None:
    """Return the split and the content that a name stands for; None for other names.

    >>> role_of("x_train"), role_of("test_labels"), role_of("X"), role_of("weights")
    (('train', 'images'), ('test', 'labels'), ('train', 'images'), None)
    """
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    split = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS] or ["train"]
    rest = [word for word in words if word not in SPLIT_WORDS]
    if len(split) > 1 or len(rest) != 1 or rest[0] not in (*_IMAGES, *_LABELS):
        return None
    return split[0], "images" if rest[0] in _IMAGES else "labels"


def _splits(given: Mapping[str, Any], place: str) -> dict[str, tuple[Any, Any]]:
    """Return the images and labels of each split."""
    found: dict[tuple[str, str], str] = {}
    for name in given:
        role = role_of(name)
        if role is None:
            continue
        if role in found:
            both = f"both {found[role]!r} and {name!r}"
            raise DatasetError(f"{place}: {both} stand for the {role[0]} {role[1]}")
        found[role] = name
    splits = {}
    for split in dict.fromkeys(split for split, _ in found):
        for content in ("images", "labels"):
            if (split, content) not in found:
                missing = f"no {split} {content} among {', '.join(map(str, given))}"
                raise DatasetError(f"{place}: {missing}, expected {WANTED}")
        splits[split] = given[found[split, "images"]], given[found[split, "labels"]]
    return splits


def _part(images: Any, labels: Any, place: str, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = np.asarray(images), np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "biuUS":
        found = f"{labels.dtype} of shape {labels.shape}"
        raise DatasetError(
            f"{place}: expected one whole number or name per image as labels, got {found}"
        )
    pixels = as_pixels(images, place, notes)
    if not len(pixels) or len(pixels) != len(labels):
        raise DatasetError(
            f"{place}: {len(pixels)} images and {len(labels)} labels, expected as many of each"
        )
    return pixels, labels


def as_pixels(images: np.ndarray, place: str, notes: list[str]) -> np.ndarray:
    """Return images as uint8 [N, C, H, W], of any order of the axes.

    Raises:
        DatasetError: their shape or type is not that of grey or colour images, or values are
            outside of 0 to 255, or of [0, 1] for numbers with a fraction.
    """
    return _as_bytes(_channels_first(images, place, notes), place, notes)


def _channels_first(images: np.ndarray, place: str, notes: list[str]) -> np.ndarray:
    shape = images.shape
    if images.ndim == 3:
        found, order = images[:, np.newaxis], "HW"
    elif images.ndim == 4 and (shape[1] in (1, 3)) != (shape[3] in (1, 3)):
        is_last = shape[3] in (1, 3)
        found, order = (images.transpose(0, 3, 1, 2), "HWC") if is_last else (images, "CHW")
    else:
        raise DatasetError(
            f"{place}: cannot tell the axes of images of shape {shape}, expected [N, H, W],"
            " [N, H, W, C] or [N, C, H, W] with C = 1 or 3"
        )
    channels, height, width = found.shape[1:]
    if height not in _SIDES or width not in _SIDES:
        raise DatasetError(
            f"{place}: images of {height}x{width} pixels, expected sides of 1 to {_SIDES.stop - 1}"
        )
    colour = "grey" if channels == 1 else "colour"
    _add(notes, f"{height}x{width} {colour} ({order})")
    return found


def _as_bytes(images: np.ndarray, place: str, notes: list[str]) -> np.ndarray:
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype.kind not in "biuf" or not images.size:
        raise DatasetError(f"{place}: expected numbers as pixels, got {images.dtype}")
    lowest, highest = images.min(), images.max()
    most = 1 if images.dtype.kind in "bf" else 255
    if not 0 <= lowest <= highest <= most:
        kind = "[0, 1] for fractions" if most == 1 else "0 to 255 for whole numbers"
        raise DatasetError(f"{place}: pixels from {lowest:g} to {highest:g}, expected {kind}")
    if most == 255:
        return np.ascontiguousarray(images, np.uint8)
    _add(notes, "pixels from [0, 1] are rounded to 256 levels")
    pixels = np.empty(images.shape, np.uint8)
    for place_of, image in enumerate(images):  # one at a time: all would need eight times the room
        pixels[place_of] = np.rint(image.astype(np.float64) * 255)
    return pixels


def _numbered(
    parts: list[tuple[np.ndarray, np.ndarray]], place: str, notes: list[str]
) -> ArrayData:
    """Number the classes from 0, and split off test images where there are none."""
    classes = np.unique(parts[0][1])
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise DatasetError(
            f"{place}: {len(classes):,} classes among the training labels,"
            f" expected 2 to {MOST_CLASSES:,}"
        )
    if others := sorted(set(np.unique(parts[-1][1]).tolist()) - set(classes.tolist())):
        raise DatasetError(f"{place}: the test has a class {others[0]!r} that the training lacks")
    if classes.tolist() != list(range(len(classes))):
        shown = ", ".join(map(str, classes[:3].tolist())) + (", ..." if len(classes) > 3 else "")
        notes.append(f"classes {shown} are numbered from 0 in this order")
    numbered = [
        Part(images, np.searchsorted(classes, labels).astype(np.int64)) for images, labels in parts
    ]
    train, test = numbered if len(numbered) == 2 else _split(numbered[0], place, notes)
    return ArrayData(train, test, len(classes), tuple(notes))


def _split(part: Part, place: str, notes: list[str]) -> tuple[Part, Part]:
    is_test = test_rows(part.labels, place)
    notes.append(TEST_NOTE)
    train, test = (Part(part.images[rows], part.labels[rows]) for rows in (~is_test, is_test))
    return train, test


def test_rows(labels: Int64[np.ndarray, " image"], place: str) -> np.ndarray:
    """Return which images are for the test: every fifth of each class, in their order.

    Raises:
        DatasetError: a class has fewer than five images.
    """
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < EVERY:
            raise DatasetError(
                f"{place}: class {label} has {len(rows)} images, expected at least {EVERY}, because"
                " every fifth is for the test"
            )
        is_test[rows[EVERY - 1 :: EVERY]] = True
    return is_test


def _add(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


def histogram(images: UInt8[np.ndarray, " n c h w"]) -> np.ndarray:
    """Return how often each of the 256 values occurs in each channel."""
    return np.stack(
        [
            np.bincount(images[:, channel].ravel(), minlength=256)
            for channel in range(images.shape[1])
        ]
    )


def moments(counts: np.ndarray, place: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel on a [0, 1] scale, exactly.

    Raises:
        DatasetError: all pixels of a channel have one value.
    """
    values, total = np.arange(256) / 255, counts.sum(axis=1)
    mean = counts @ values / total
    std = np.sqrt((counts * (values - mean[:, np.newaxis]) ** 2).sum(axis=1) / total)
    if not std.all():
        raise DatasetError(f"{place}: all pixels of a channel have one value, expected images")
    rounded = (tuple(round(float(value), 6) for value in found) for found in (mean, std))
    return next(rounded), next(rounded)
