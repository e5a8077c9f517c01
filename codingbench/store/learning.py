"""Facts that show whether a cell learned, derived from its other tables.

New cells store them in ``cells``. For cells of older versions they are derived when ``cells`` is
read, so that both kinds are judged alike (:mod:`codingbench.analysis.learning`).
"""

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Int

from codingbench.store.folder import Store
from codingbench.store.plausible import read

if TYPE_CHECKING:
    import pandas as pd

FACTS: Final = ("silent_layers", "largest_class_share", "loss_drop")
"""Columns of ``cells`` that :func:`facts` returns."""

MOST_OLDER: Final = 1_000
"""If more cells than this lack the facts, they stay unknown: deriving them would take too long."""

MOST_PREDICTIONS: Final = 3_000_000
"""The class shares of cells with more predictions than this together stay unknown."""


Labels = Int[np.ndarray, " image"]


def is_unequal(labels: Labels, num_classes: int) -> bool:
    """Return whether the classes have unequal counts.

    A bounded number of test images takes one of each class in turn, so counts that differ by one
    are equal.

    >>> is_unequal(np.array([0, 1, 2, 0]), 3), is_unequal(np.array([0, 1, 0, 0]), 2)
    (False, True)
    """
    counts = np.unique(labels, return_counts=True)[1]
    least = counts.min() if len(counts) == num_classes else 0
    return bool(counts.max() - least > 1)


def majority_share(labels: Labels, num_classes: int) -> float:
    """Return the accuracy in [0, 1] of answering the most frequent class.

    For equal classes it is 1 / ``num_classes``; see :func:`is_unequal`.

    >>> majority_share(np.array([0, 1, 0, 0]), 2), majority_share(np.array([0, 1, 0]), 2)
    (0.75, 0.5)
    """
    if not is_unequal(labels, num_classes):
        return 1 / num_classes
    return float(np.unique(labels, return_counts=True)[1].max() / len(labels))


def facts(
    cells: "pd.DataFrame",
    layers: "pd.DataFrame",
    epochs: "pd.DataFrame",
    predictions: "pd.DataFrame",
) -> "pd.DataFrame":
    """Return the facts of cells, indexed by key.

    - ``silent_layers``: the layers of neurons without a single spike, and the code if it is 0
      everywhere, on all test images, at all steps and with the weights of the last epoch. Names are
      comma-separated in the order of execution.
    - ``largest_class_share``: the share of the most frequent label among the test images, as
      :func:`majority_share` defines it. A network that predicts this class for every image has that
      accuracy.
    - ``loss_drop``: the smaller of two differences, at most 0 if the loss never fell. The first is
      the training loss of the first epoch minus that of the last, unknown with one epoch; both are
      the same function, whatever the recipe's loss. The second is ln(num_classes), the
      cross-entropy of equal logits for labels of any smoothing or mixture, minus the smaller of the
      last training and validation losses. Validation always measures plain cross-entropy.

    Args:
        cells: the table ``cells``.
        layers, epochs, predictions: their rows of the tables of these names. The facts of a cell
            without rows are null.
    """
    by_key = cells.set_index("key")
    return by_key[[]].assign(
        silent_layers=_silent_layers(layers),
        largest_class_share=_largest_share(predictions, by_key["num_classes"]),
        loss_drop=_loss_drop(epochs, by_key["num_classes"]),
    )


def read_cells(store: Store, keys: Collection[str] | None = None) -> "pd.DataFrame":
    """Read the table ``cells`` as :func:`codingbench.store.plausible.read` does, with all facts.

    Raises:
        StoreError: a table cannot be read, or has values that no run could have written.
    """
    cells = read(store, "cells", keys)
    older = cells[cells[list(FACTS)].isna().all(axis=1)]
    if older.empty or len(older) > MOST_OLDER:
        return cells
    wanted = set(older["key"])
    is_much = older["images"].sum() > MOST_PREDICTIONS
    derived = facts(
        older,
        read(store, "layers", wanted),
        read(store, "epochs", wanted),
        read(store, "predictions", set() if is_much else wanted),
    )
    known = derived.loc[older["key"]].set_axis(older.index)
    return cells.assign(**{name: cells[name].fillna(known[name]) for name in FACTS})


def _silent_layers(layers: "pd.DataFrame") -> "pd.Series[str]":
    spiking = layers[layers["kind"].isin(["neuron", "code"])].sort_values("position", kind="stable")
    spikes = spiking.groupby(["key", "layer"], sort=False)["spikes"].sum().reset_index()
    silent = spikes[spikes["spikes"] == 0].groupby("key")["layer"].agg(",".join)
    return silent.reindex(layers["key"].unique(), fill_value="")


def _largest_share(
    predictions: "pd.DataFrame", num_classes: "pd.Series[int]"
) -> "pd.Series[float]":
    import pandas as pd

    shares = {
        key: majority_share(labels.to_numpy(), int(num_classes[key]))
        for key, labels in predictions.groupby("key")["label"]
    }
    return pd.Series(shares, dtype=float)


def _loss_drop(epochs: "pd.DataFrame", num_classes: "pd.Series[int]") -> "pd.Series[float]":
    ordered = epochs.sort_values(["key", "epoch"])
    first, last = (
        ordered.drop_duplicates("key", keep=end).set_index("key") for end in ("first", "last")
    )
    fell = (first["train_loss"] - last["train_loss"]).where(first["epoch"] < last["epoch"])
    of_equal_logits = num_classes.loc[last.index].map(math.log)
    below = of_equal_logits - np.fmin(last["train_loss"], last["val_loss"])
    return below.where(fell.isna() | (below < fell), fell)
