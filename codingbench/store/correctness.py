"""Which test images each cell got right, from the table ``predictions``."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Int16

from codingbench.store.folder import Store
from codingbench.store.parts import by_key

_NEEDED: Final = ("image", "label", "prediction")
_TOLERANCE: Final = 1e-9  # of a mean of zeros and ones


class Predictions(NamedTuple):
    """One cell's answers to its test images, in the order of the images."""

    labels: Int16[np.ndarray, " image"]
    right: Bool[np.ndarray, " image"]


def read_predictions(store: Store, cells: pd.DataFrame) -> dict[str, Predictions]:
    """The answers of those ``cells`` whose predictions are there and give the cell's accuracy.

    A store may be handed on without the table ``predictions``.

    Raises:
        StoreError: the table cannot be read.
    """
    tables = by_key(store.read_table("predictions", set(cells["key"])))
    found = {}
    for key, images, accuracy in zip(cells["key"], cells["images"], cells["accuracy"], strict=True):
        answers = _answers(tables[key]) if key in tables else None
        is_whole = answers is not None and len(answers.right) == images
        if answers and is_whole and abs(answers.right.mean() - accuracy) < _TOLERANCE:
            found[key] = answers
    return found


def side_by_side(
    answers: Mapping[str, Predictions], keys: Sequence[str]
) -> Bool[np.ndarray, "cell image"] | None:
    """What each cell got right; None where one's answers are missing or to other images."""
    if any(key not in answers for key in keys):
        return None
    first, *others = [answers[key] for key in keys]
    if not all(np.array_equal(first.labels, other.labels) for other in others):
        return None
    return np.stack([answers[key].right for key in keys])


def _answers(rows: pa.Table) -> Predictions | None:
    """None where a value is missing or an image is not there exactly once."""
    if any(rows[name].null_count for name in _NEEDED):
        return None
    image, label, prediction = (rows[name].to_numpy() for name in _NEEDED)
    order = np.argsort(image, kind="stable")
    if not np.array_equal(image[order], np.arange(len(image))):
        return None
    return Predictions(label[order], (label == prediction)[order])
