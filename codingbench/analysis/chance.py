"""The accuracy of a network that has learned nothing, and accuracy that such a network cannot have.

Whoever answers the most frequent class without looking is right for that class's share of the test
images. Chance is therefore this share where the classes of the test images are unequal, and 1 / K
for K equal classes. Balanced accuracy, the mean over classes of the share of their images that are
classified correctly, is 1 / K for such a network in either case.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from codingbench.analysis.ranks import MOST_PREDICTIONS, Reader
from codingbench.store.correctness import Predictions
from codingbench.store.learning import Labels, is_unequal, majority_share

TEST_IMAGES: Final = ["dataset", "dataset_fingerprint", "test_samples"]
"""The columns of ``cells`` that decide which test images a cell has."""

MOST_TRIED: Final = 3
"""Cells whose predictions are tried, to learn the labels of test images that they share."""


def chance_of(cells: pd.DataFrame, answers: Reader | None) -> pd.DataFrame:
    """Return for each cell ``chance`` and ``balanced_accuracy``.

    Args:
        cells: rows of the table ``cells``.
        answers: reads the predictions of cells; None: no labels are known.

    Returns:
        A data frame with the index of ``cells``. Where the labels of the test images are not known,
        ``chance`` is 1 / number of classes. ``balanced_accuracy`` is NaN where the classes are
        equal, the predictions are not known, or there are more than
        :data:`~codingbench.analysis.ranks.MOST_PREDICTIONS` of them.
    """
    found = pd.DataFrame({"chance": 1 / cells["num_classes"], "balanced_accuracy": np.nan})
    if answers is None:
        return found
    for _, group in cells.groupby([*TEST_IMAGES, "num_classes"], dropna=False):
        labels, num_classes = _labels_of(group, answers), int(group["num_classes"].iloc[0])
        if labels is not None and is_unequal(labels, num_classes):
            found.loc[group.index, "chance"] = majority_share(labels, num_classes)
            found.loc[group.index, "balanced_accuracy"] = _balanced(group, answers)
    return found


def _labels_of(group: pd.DataFrame, answers: Reader) -> Labels | None:
    """Return the labels of the test images that the cells of a group share, if they are known."""
    for place in range(min(len(group), MOST_TRIED)):
        one = group.iloc[[place]]
        if predictions := answers(one).get(one["key"].iloc[0]):
            return predictions.labels
    return None


def _balanced(group: pd.DataFrame, answers: Reader) -> "pd.Series[Any]":
    is_much = group["images"].sum() > MOST_PREDICTIONS
    known: Mapping[str, Predictions] = {} if is_much else answers(group)
    by_key = {key: _mean_recall(predictions) for key, predictions in known.items()}
    return group["key"].map(by_key).astype(float)


def _mean_recall(predictions: Predictions) -> float:
    """Return the mean over the classes that occur of the share classified correctly."""
    classes = np.unique(predictions.labels, return_inverse=True)[1]
    hits = np.bincount(classes, weights=predictions.right)
    return float((hits / np.bincount(classes)).mean())
