"""The rows of a leaderboard that stand in one table, and those of it to emphasise."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from codingbench.analysis.leaderboard import GROUP
from codingbench.analysis.ranks import VALUE


def groups(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Per group a heading, the further conditions, and the rows, in the order of the table."""
    for _, group in table.groupby(GROUP, dropna=False):
        first: Any = next(group.itertuples())
        whole = first.micro_batch == first.batch_size
        pieces = "" if whole else f" in pieces of {first.micro_batch}"
        yield (
            f"{first.dataset}, recipe {first.recipe}, {first.epochs} epochs, "
            f"{first.train_samples:,} training images, backbone {first.backbone}",
            f"batch size {first.batch_size}{pieces}, {first.precision}, "
            f"{first.test_samples:,} test images, chance {100 * first.chance:.3g} %",
            group,
        )


def best_rows(group: pd.DataFrame, field: str) -> set[Any]:
    """The rows to emphasise: of lowest cost, or not told apart from the best accuracy.

    None where all are equally good. A single run is never called best.
    """
    several = group[group["seeds"] > 1]
    if field != "accuracy":
        best = several[field] <= several[field].min() * (1 + 1e-9)  # equal but for rounding
    else:
        best = several["rank"].eq(1) & several["rank_basis"].ne(VALUE)
    return set() if best.all() else set(several.index[best])
