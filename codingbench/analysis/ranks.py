"""Rank rows by accuracy so that rows share a rank unless they differ significantly.

The rank of a row is 1 + the number of rows in its group that are significantly better. The test is
that of :mod:`codingbench.analysis.statistics`, paired over the seeds that both rows have and over
test images, with Holm's correction for all pairs of the group. A row of a single run has no rank.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from codingbench.analysis.statistics import (
    ALPHA,
    Differences,
    holm,
    over_seeds,
    over_seeds_and_images,
)
from codingbench.store.correctness import Predictions, side_by_side

SEEDS_AND_IMAGES: Final = "seeds and test images"
SEEDS: Final = "seeds"
VALUE: Final = "value"

RANK_COLUMNS: Final[dict[str, str]] = {
    "rank": "1 is the best row of the group by --sort; equal values share a rank. By accuracy: 1 + "
    "the number of rows that are significantly better at the 5 % level; null for one seed",
    "rank_basis": f"what the tests behind the rank are paired over: {SEEDS_AND_IMAGES}, or {SEEDS} "
    f"only; {VALUE}: nothing was tested",
    "comparisons": "number of pairs of rows of the group that were tested and corrected for",
}
"""The columns about the rank of a row."""

MOST_CELLS: Final = 1_000
"""If more cells than this are ranked by accuracy, tests are paired over seeds only."""

MOST_PREDICTIONS: Final = 3_000_000
"""The same for predictions. With 3 million, the process peaks at 450 MB."""

MOST_ROWS: Final = 1_000
"""Larger groups are ranked by value: a group of 1,000 rows has half a million pairs."""

Reader = Callable[[pd.DataFrame], Mapping[str, Predictions]]
"""Return the known predictions, by key, of cells with ``key``, ``accuracy`` and ``images``."""

_Runs = Any  # structured array: row (a number), key, seed, accuracy, images; ordered by row
_Accuracies = Float[np.ndarray, "row seed"]  # NaN where a row has no such seed


def by_value(table: pd.DataFrame, equal: Sequence[str], group: Sequence[str]) -> pd.DataFrame:
    """Return the rank columns of sorted rows; equal rows share the first of their places.

    Args:
        table: the rows.
        equal: columns that rows of one rank share.
        group: columns that rows of one group share.
    """
    place = table.groupby(list(group), dropna=False).cumcount() + 1
    first_of_equals = place.groupby([table[name] for name in equal], dropna=False)
    return _columns(first_of_equals.transform("min"), VALUE, 0)


def by_tests(
    table: pd.DataFrame, cells: pd.DataFrame, group: Sequence[str], answers: Reader | None = None
) -> pd.DataFrame:
    """Return the rank columns ``RANK_COLUMNS`` of rows sorted by accuracy.

    Args:
        table: the rows, numbered from 0, each with the ``keys`` of its cells. The rows of a group
            are adjacent.
        cells: the table ``cells``.
        group: columns that rows of one group share.
        answers: reads the predictions of cells; None to pair over seeds only.
    """
    has_rank = (table["seeds"] > 1).to_numpy()
    ranks, pairs = np.ones(len(table), int), np.zeros(len(table), int)
    bases = np.full(len(table), SEEDS, object)
    number = table.groupby(list(group), dropna=False, sort=False).ngroup().to_numpy()
    runs = _runs_of(table[has_rank], cells)
    known = _known(runs, answers)
    for part in _split(runs, number[runs["row"]]):
        rows = np.unique(part["row"])
        whole = slice(*np.searchsorted(number, [number[rows[0]], number[rows[0]] + 1]))
        if len(rows) > MOST_ROWS:
            ranks[rows] = _places(table["accuracy"].to_numpy()[rows])
            bases[whole] = VALUE
        elif len(rows) > 1:
            ranks[rows], bases[whole], pairs[whole] = _tested(part, known)
    return _columns(pd.Series(ranks, table.index).where(has_rank), bases, pairs)


def _columns(ranks: "pd.Series[Any]", bases: Any, pairs: Any) -> pd.DataFrame:
    values = (ranks.astype("Int64"), bases, pairs)
    return pd.DataFrame(dict(zip(RANK_COLUMNS, values, strict=True)), index=ranks.index)


def _runs_of(table: pd.DataFrame, cells: pd.DataFrame) -> _Runs:
    keys = table["keys"].explode()
    facts = cells.drop_duplicates("key").set_index("key").loc[keys, ["seed", "accuracy", "images"]]
    return facts.assign(row=keys.index.to_numpy()).reset_index().to_records(index=False)


def _split(runs: _Runs, groups: Int[np.ndarray, " run"]) -> Iterator[_Runs]:
    """Yield the runs of each group; groups are in ascending order."""
    if len(runs):
        yield from np.split(runs, np.flatnonzero(np.diff(groups)) + 1)


def _known(runs: _Runs, answers: Reader | None) -> Mapping[str, Predictions]:
    """Return the predictions, or nothing if they are too many or not to be read."""
    is_much = len(runs) > MOST_CELLS or runs["images"].sum() > MOST_PREDICTIONS
    if answers is None or is_much or not len(runs):
        return {}
    return answers(pd.DataFrame.from_records(runs))


def _places(accuracies: Float[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
    """Return for each accuracy 1 + the number of higher ones."""
    places: Int[np.ndarray, " row"] = 1 + np.searchsorted(np.sort(-accuracies), -accuracies)
    return places


def _tested(
    runs: _Runs, known: Mapping[str, Predictions]
) -> tuple[Int[np.ndarray, " row"], str, int]:
    """Return the ranks of one group, the basis of its tests, and the number of pairs tested."""
    (rows, row), (seeds, seed) = (np.unique(runs[n], return_inverse=True) for n in ("row", "seed"))
    accuracies = np.full((len(rows), len(seeds)), np.nan)
    accuracies[row, seed] = runs["accuracy"]
    a, b = np.triu_indices(len(rows), 1)
    shared = np.isfinite(accuracies[a] - accuracies[b])
    a, b, shared = (pairs[shared.sum(1) > 1] for pairs in (a, b, shared))
    right = side_by_side(known, runs["key"])
    if right is None:
        found = over_seeds(accuracies[a] - accuracies[b], shared, int(runs["images"].min()))
    else:
        place = np.full(accuracies.shape, len(runs))
        place[row, seed] = np.arange(len(runs))
        found = _over_images(right, place[a], place[b], shared)
    is_significant = holm(found.p_values()) <= ALPHA
    worse = np.where(found.mean > 0, b, a)[is_significant]
    basis = SEEDS if right is None else SEEDS_AND_IMAGES
    return 1 + np.bincount(worse, minlength=len(rows)), basis, len(a)


def _over_images(
    right: Bool[np.ndarray, "run image"],
    a: Int[np.ndarray, "pair seed"],
    b: Int[np.ndarray, "pair seed"],
    shared: Bool[np.ndarray, "pair seed"],
) -> Differences:
    """Test each pair without a loop over images; ``a`` and ``b`` are places in ``right``.

    Let Q be the number of images that two runs both classify correctly. For the differences
    d = right_a - right_b, the sum ``sum_i d[s, i] d[r, i]`` is then
    Q[a_s, a_r] - Q[a_s, b_r] - Q[b_s, a_r] + Q[b_s, b_r].
    """
    padded = np.vstack([right, np.zeros_like(right[:1])]).astype(
        np.float32
    )  # the last row stands for a missing run
    both = (padded @ padded.T).astype(np.float64)  # float32 is exact up to 2^24 images
    signed = ((a, 1), (b, -1))
    gram = sum(
        i * j * both[first[:, :, None], second[:, None, :]]
        for first, i in signed
        for second, j in signed
    )
    correct = padded.sum(1, dtype=np.float64)
    sums = np.where(shared, correct[a] - correct[b], 0)
    mask = shared[:, :, None] & shared[:, None, :]
    return over_seeds_and_images(np.where(mask, gram, 0), sums, shared, right.shape[1])
