"""Rank rows by accuracy: 1 + the number of rows that are significantly better.

Each row is compared with two others only: the best row of its group, and ``direct`` at the same T.
Holm's correction is for all comparisons with the best, and again for all with ``direct``. The test
is that of :mod:`codingbench.analysis.statistics`, paired over the seeds that both rows have and
over test images. A row of a single run has no rank.

The best row is chosen by the same accuracies that are then tested, which has two consequences.

- If all codings were equal, the largest of many differences would be found significant in more
  than 5 % of groups. All rows therefore share rank 1 unless at least one of all pairs of the group
  differs with Holm's correction for all pairs. If all codings are equal, this happens with a
  probability of at most 5 %.
- If some codings differ, a coding that is truly the best gets a rank above 1 because of the best
  row with a probability of at most 5 %: a lower row must be ahead of it by a significant amount.
  This is the confidence set of multiple comparisons with the best (Hsu, Annals of Statistics 12,
  1984). It does not hold for *all* of several equally good best codings together.

``tests/test_ties.py`` simulates both. Letters show which of all pairs differ.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from codingbench.analysis.letters import letters
from codingbench.analysis.power import detectable
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

REFERENCE: Final = "direct"
"""The encoder that all others are compared with, with its default parameters."""

RANK_COLUMNS: Final[dict[str, str]] = {
    "rank": "1 is the best row of the group by --sort; equal values share a rank. By accuracy: 1 + "
    "the number of rows, among the best row and direct at the same T, that are significantly "
    "better at the 5 % level; 1 if no pair of the group differs; null for one seed",
    "letters": "rows without a common letter differ significantly in accuracy, corrected for all "
    "pairs; null for one seed, where nothing was tested, or beyond 200 rows or 26 letters",
    "detectable_difference": "difference of accuracies, in [0, 1], that a comparison with the best "
    "row finds in 80 % of cases; null where nothing was tested or accuracies cannot differ as much",
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
_Columns = dict[str, Any]  # column -> its values, one for each row of the table
_Accuracies = Float[np.ndarray, "row seed"]  # NaN where a row has no such seed


def by_value(
    table: pd.DataFrame,
    equal: Sequence[str],
    group: Sequence[str],
    has_rank: "pd.Series[bool] | None" = None,
) -> pd.DataFrame:
    """Return the rank columns of sorted rows; equal rows share the first of their places.

    Args:
        table: the rows.
        equal: columns that rows of one rank share.
        group: columns that rows of one group share.
        has_rank: whether each row has a rank; the others come last in their group. None: all.
    """
    ranked = np.ones(len(table), bool) if has_rank is None else has_rank.to_numpy(bool)
    place = table.groupby(list(group), dropna=False).cumcount() + 1
    first_of_equals = place.groupby([table[name] for name in equal], dropna=False)
    found = _untested(len(table))
    found["rank"] = first_of_equals.transform("min").to_numpy()
    found["rank_basis"][:] = VALUE
    return _frame(found, table.index, ranked)


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
    found = _untested(len(table))
    number = table.groupby(list(group), dropna=False, sort=False).ngroup().to_numpy()
    runs = _runs_of(table[has_rank], cells)
    known = _known(runs, answers)
    for part in _split(runs, number[runs["row"]]):
        rows = np.unique(part["row"])
        whole = slice(*np.searchsorted(number, [number[rows[0]], number[rows[0]] + 1]))
        if len(rows) > MOST_ROWS:
            found["rank"][rows] = _places(table["accuracy"].to_numpy()[rows])
            found["rank_basis"][whole] = VALUE
        elif len(rows) > 1:
            tests, found["rank_basis"][whole] = _tested(part, known)
            found["rank"][rows] = tests.ranks(_references(table.iloc[rows]))
            found["letters"][rows] = tests.letters()
            found["detectable_difference"][whole] = tests.detectable()
            found["comparisons"][whole] = len(tests.a)
    return _frame(found, table.index, has_rank)


def _untested(rows: int) -> _Columns:
    """Return the columns of rows that were not tested."""
    return {
        "rank": np.ones(rows, int),
        "letters": np.full(rows, None, object),
        "detectable_difference": np.full(rows, np.nan),
        "rank_basis": np.full(rows, SEEDS, object),
        "comparisons": np.zeros(rows, int),
    }


def _frame(
    found: _Columns, index: "pd.Index[Any]", has_rank: Bool[np.ndarray, " row"]
) -> pd.DataFrame:
    frame = pd.DataFrame(found, index)
    return frame.assign(rank=frame["rank"].astype("Int64").where(has_rank))


def _references(rows: pd.DataFrame) -> Int[np.ndarray, " row"]:
    """Return for each row the place of ``direct`` at its T, or -1 if there is none."""
    steps = rows["num_steps"].tolist()
    is_direct = rows["encoder"].eq(REFERENCE)
    place_of = {steps[place]: place for place in np.flatnonzero(is_direct)}
    return np.array([place_of.get(num_steps, -1) for num_steps in steps])


@dataclass(frozen=True)
class _Tests:
    """The tests of all pairs of rows of one group that share two seeds."""

    rows: int
    a: Int[np.ndarray, " pair"]
    b: Int[np.ndarray, " pair"]
    found: Differences
    """The differences a - b."""

    @cached_property
    def _p(self) -> Float[np.ndarray, " pair"]:
        return self.found.p_values()

    @cached_property
    def _differ(self) -> Bool[np.ndarray, " pair"]:
        significant: Bool[np.ndarray, " pair"] = holm(self._p) <= ALPHA
        return significant

    def ranks(self, direct: Int[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
        """Return the ranks; row 0 is the best, and ``direct`` is the place of direct or -1."""
        ranks = np.ones(self.rows, int)
        if self._differ.any():
            direct = np.where(direct == 0, -1, direct)  # the best row counts once
            ranks += self._worse_than(np.zeros(self.rows, int)) + self._worse_than(direct)
        return ranks

    def _worse_than(self, reference: Int[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
        """Count 1 for each row that is significantly worse than its reference."""
        is_b, is_a = reference[self.a] == self.b, reference[self.b] == self.a
        family = is_a | is_b
        significant = holm(self._p[family]) <= ALPHA
        signed = np.where(is_a, self.found.mean, -self.found.mean)[family]  # reference - row
        row = np.where(is_a, self.b, self.a)[family]
        return np.bincount(row[significant & (signed > 0)], minlength=self.rows)

    def letters(self) -> list[str] | list[None]:
        """Return the letters of each row."""
        pairs = zip(self.a[self._differ].tolist(), self.b[self._differ].tolist(), strict=True)
        known = letters(self.rows, pairs) if len(self.a) else None
        return known or [None] * self.rows

    def detectable(self) -> float:
        """Return the difference from the best row that its test finds in 80 % of cases."""
        return detectable(self.found, max(1, self.rows - 1)) if len(self.a) else np.nan


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


def _tested(runs: _Runs, known: Mapping[str, Predictions]) -> tuple[_Tests, str]:
    """Return the tests of one group, and their basis."""
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
    return _Tests(len(rows), a, b, found), SEEDS if right is None else SEEDS_AND_IMAGES


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
