"""The names of classes that Parquet shards state, as the library ``datasets`` writes them.

Two shards may number the same classes differently. Labels are then mapped by the names of the
classes to the numbers of the first training shard.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from codingbench.errors import DatasetError

Names = tuple[str, ...]

LABEL_COLUMNS: Final = ("fine_label", "label")
"""The column of the labels is the first of these that a shard has."""

_MOST_BYTES: Final = 2**24  # of the metadata that is parsed
_DIGITS: Final = (
    *("zero", "one", "two", "three", "four"),
    *("five", "six", "seven", "eight", "nine"),
)
_CLOTHES: Final = (
    *("tshirttop", "tshirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankleboot"),
)
_THINGS: Final = (
    *("airplane", "plane", "automobile", "car", "bird", "cat"),
    *("deer", "dog", "frog", "horse", "ship", "truck"),
)
KNOWN: Final = {
    "mnist": frozenset(
        [*"0123456789", *_DIGITS, *map("".join, zip("0123456789", _DIGITS, strict=True))]
    ),
    "fashion_mnist": frozenset(_CLOTHES),
    "cifar10": frozenset(_THINGS),
}
"""Small letters and digits of the class names of data sets that have ten classes each."""


def class_names(schema: pa.Schema, column: str) -> Names | None:
    """Return the names of the classes in a column of labels, or None if the shard has none."""
    text = (schema.metadata or {}).get(b"huggingface", b"")
    if len(text) > _MOST_BYTES:
        return None
    try:
        names = json.loads(text)["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list and names else None


def stated_names(path: Path) -> Names | None:
    """Return the names of the classes that a shard states; None for a file that is no shard."""
    try:
        schema = pq.read_schema(path)
    except (OSError, ValueError, pa.ArrowException):  # reported when the shard is loaded
        return None
    labels = [name for name in LABEL_COLUMNS if name in schema.names]
    return class_names(schema, labels[0]) if labels else None


def mapping(path: Path, own: Names | None, wanted: Names | None) -> Int64[np.ndarray, " k"] | None:
    """Return the number of each class of ``own`` in ``wanted``; None: the numbers are the same.

    Args:
        path: the shard with the names ``own``, for messages.
        own: names of the classes in the shard; None: not stated.
        wanted: names of the classes in the first training shard; None: not stated.

    Raises:
        DatasetError: the names differ in more than their order.
    """
    if own is None or wanted is None or own == wanted:
        return None
    if sorted(own) != sorted(wanted) or len(set(own)) < len(own):
        raise DatasetError(
            f"{path}: its classes are {_few(own)}, but those of the first training shard are "
            f"{_few(wanted)}: expected the same names"
        )
    return np.array([wanted.index(name) for name in own], np.int64)


def mapped(labels: Int64[np.ndarray, " i"], numbers: Int64[np.ndarray, " k"] | None) -> np.ndarray:
    """Return the labels with new numbers; those outside of the classes stay as they are."""
    if numbers is None:
        return labels
    is_inside = (labels >= 0) & (labels < len(numbers))
    return np.where(is_inside, numbers[np.where(is_inside, labels, 0)], labels)


def check_names(path: Path, dataset: str, names: Names | None) -> None:
    """Refuse class names that belong to another known data set.

    Raises:
        DatasetError: the message says which classes were found.
    """
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()) for name in names or ()}
    for other, known in KNOWN.items():
        if dataset in KNOWN and other != dataset and len(plain & known) > len(plain) / 2 > 0:
            raise DatasetError(
                f"{path} holds the classes {_few(names or ())}, which are those of {other}, "
                f"expected {dataset}"
            )


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(name[:40] for name in names[:5])
    return shown + (f", ... ({len(names)} in all)" if len(names) > 5 else "")
