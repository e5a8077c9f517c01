"""Signs that a cell learned nothing: silent layers, an accuracy at chance, a loss that never fell.

Each sign is derived from facts in the table ``cells`` (:mod:`codingbench.store.learning`); what is
not known gives no sign. A sign excludes no cell from a table: it is shown beside the numbers.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from codingbench.runtime.formatting import first_few, seeds_text
from codingbench.store.learning import FACTS

LEVEL: Final = 0.00135
"""Level of the one-sided test against chance: a normal variable exceeds its mean by three standard
deviations with this probability. A network that guesses is thus taken for one that learned in one
of 740 cells."""

AT_CHANCE: Final = "accuracy not above chance"
NOT_FALLEN: Final = "loss never fell: not below that of the first epoch, or of equal logits"

SIGN_COLUMNS: Final[dict[str, str]] = {
    "silent_layers": "layers of neurons, or the code, without a spike on the test images in any of "
    "the cells; empty if there are none or it is unknown",
    "at_chance": "number of cells whose accuracy is not above chance: one-sided binomial test "
    f"against the share of the largest class, level {LEVEL}",
    "loss_not_fallen": "number of cells whose last training loss is not below the first epoch's, "
    "or whose last training and validation losses are both not below ln(number of classes)",
    "collapsed_seeds": "seeds at chance while others of the row are above it; mostly empty",
}
"""The columns about learning of a row that averages cells."""


def with_signs(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells with three signs: a list of silent layers, and two booleans.

    Args:
        cells: the table ``cells``. What it lacks is unknown.
    """
    known = cells.reindex(columns=["accuracy", "num_classes", "images", *FACTS])
    share = known["largest_class_share"].fillna(1 / known["num_classes"])
    numbers = (known["accuracy"], share, known["images"])
    texts = known["silent_layers"].tolist()
    names = [text.split(",") if isinstance(text, str) and text else [] for text in texts]
    return cells.assign(
        silent_layers=pd.Series(names, cells.index, object),
        at_chance=is_at_chance(*(values.to_numpy(float) for values in numbers)),
        loss_not_fallen=(known["loss_drop"] <= 0).to_numpy(bool),
    )


def guessing_seeds(cells: pd.DataFrame) -> "pd.Series[Any]":
    """Return the seed of each cell of :func:`with_signs` that is at chance, NA for the others."""
    return cells["seed"].astype("Int64").where(cells["at_chance"])


def collapsed(guessing: "pd.Series[Any]") -> list[int]:
    """Return the seeds at chance of one coding, unless all of its seeds are.

    >>> collapsed(pd.Series([pd.NA, 1, pd.NA])), collapsed(pd.Series([0, 1]))
    ([1], [])
    """
    seeds: list[int] = guessing.dropna().tolist()
    return seeds if len(seeds) < len(guessing) else []


def is_at_chance(
    accuracy: Float[np.ndarray, " cell"],
    share: Float[np.ndarray, " cell"],
    images: Float[np.ndarray, " cell"],
) -> Bool[np.ndarray, " cell"]:
    """Return whether each accuracy is not significantly above ``share``.

    The exact one-sided binomial test: the probability that ``images`` independent guesses, each
    right with probability ``share``, give at least this accuracy exceeds ``LEVEL``. An accuracy of
    NaN is no sign.

    >>> is_at_chance(np.array([0.1, 0.2, 0.3]), np.full(3, 0.1), np.full(3, 100.0)).tolist()
    [True, True, False]
    """
    excess = np.maximum(accuracy - share, 0)
    # Hoeffding's bound of the probability spares most cells the exact one, and the import of scipy.
    found: Bool[np.ndarray, " cell"] = np.exp(-2 * images * excess**2) > LEVEL
    if found.any():
        from scipy.special import bdtrc

        hits, trials = np.rint(accuracy * images)[found], images[found].astype(int)
        found[found] = bdtrc(hits - 1, trials, share[found]) > LEVEL
    return found


def signs_of(cells: pd.DataFrame) -> list[str]:
    """Return a sentence for each sign that a cell has, for a log, a listing or a note.

    Args:
        cells: the table ``cells``, or a part of it. Where there are several cells, a sentence names
            the seeds of those that have the sign.
    """
    rows: Iterator[Any] = with_signs(cells).itertuples()
    seeds: dict[str, list[int]] = {}
    for row in rows:
        for text in _texts(row.silent_layers, row.at_chance, row.loss_not_fallen):
            seeds.setdefault(text, []).append(row.seed)
    if len(cells) == 1:
        return [*seeds]
    return [f"{seeds_text(sorted(found))}: {text}" for text, found in seeds.items()]


def _texts(silent: Sequence[str], is_at_chance: bool, is_not_fallen: bool) -> list[str]:
    texts = [f"never spiked on the test images: {first_few(silent)}"] if silent else []
    texts += [AT_CHANCE] if is_at_chance else []
    return texts + ([NOT_FALLEN] if is_not_fallen else [])
