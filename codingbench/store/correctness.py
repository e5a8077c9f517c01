"""Read which test images each cell classified correctly, from the table ``predictions``."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Int16

from codingbench.store.folder import Store
from codingbench.store.parts import by_key

_NEEDED: Final = ("image", "label", "prediction")
_TOLERANCE: Final = 1e-9  # rounding error of a mean of zeros and ones


class Predictions(NamedTuple):
    """The labels of the test images and whether each was classified correctly, in image order."""

    labels: Int16[np.ndarray, " image"]
    right: Bool[np.ndarray, " image"]


def read_predictions(store: Store, cells: pd.DataFrame) -> dict[str, Predictions]:
    """Return the predictions of cells by key.

    Cells are left out if their predictions are missing, which happens in stores that are handed on
    without that table, or if they contradict the accuracy of the cell.

    Args:
        store: the results.
        cells: their ``key``, ``images`` and ``accuracy``.

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
    """Stack what several cells classified correctly.

    The result is None if the predictions of a cell are missing or are about other images.
    """
    if any(key not in answers for key in keys):
        return None
    first, *others = [answers[key] for key in keys]
    if not all(np.array_equal(first.labels, other.labels) for other in others):
        return None
    return np.stack([answers[key].right for key in keys])


def _answers(rows: pa.Table) -> Predictions | None:
    """Return None where a value is missing or an image does not occur exactly once."""
    if any(rows[name].null_count for name in _NEEDED):
        return None
    image, label, prediction = (rows[name].to_numpy() for name in _NEEDED)
    order = np.argsort(image, kind="stable")
    if not np.array_equal(image[order], np.arange(len(image))):
        return None
    return Predictions(label[order], (label == prediction)[order])
