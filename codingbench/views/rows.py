"""The columns and notes that the tables of ranked rows have in common."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from codingbench.analysis.leaderboard import accuracy_decimals
from codingbench.runtime.formatting import counted
from codingbench.views.table import NONE, Column, or_none


def percent_text(row: Any, accuracy: float) -> str:
    """Return an accuracy in percent.

    A single run gets no more decimals than one test image can change.
    """
    return f"{100 * accuracy:.{2 if row.seeds > 1 else accuracy_decimals(row.images)}f}"


def interval_text(low: float, high: float) -> str:
    """Return both ends of an interval in percent, or a dash where there is no interval.

    >>> interval_text(0.7955, 0.8625)
    '79.5-86.2'
    """
    return NONE if pd.isna(low) else f"{100 * low:.1f}-{100 * high:.1f}"


def _seeds_text(row: Any) -> str:
    mark = "†" if row.seeds == 1 else "§" if row.mixed_code else ""
    return f"{row.seeds}{mark}"


def _accuracy_text(row: Any) -> str:
    mark = "" if row.above_chance else "‡"
    spread = f"{100 * row.accuracy_std:.2f}" if row.seeds > 1 else NONE
    return f"{percent_text(row, row.accuracy)} ± {spread}{mark}"


ENCODER: Final = Column("encoder", lambda row: row.encoder, is_number=False)
STEPS: Final = Column("T", lambda row: str(row.num_steps))
SEEDS_COLUMN: Final = Column("n", _seeds_text)
ACCURACY: Final = Column("accuracy %", _accuracy_text, "accuracy")
BALANCED: Final = Column(
    "balanced\n%",
    lambda row: or_none(row.balanced_accuracy, lambda known: percent_text(row, known)),
    is_optional=True,
)
FIRING_RATE: Final = Column(
    "firing\nrate %", lambda row: f"{100 * row.firing_rate:.2f}", "firing_rate"
)
RUN: Final = [STEPS, SEEDS_COLUMN, replace(ACCURACY, folds=True), BALANCED]
"""T, seeds and accuracies, narrow enough for many columns beside them."""


def row_notes(group: pd.DataFrame) -> Iterator[str]:
    """Yield one line for each mark that occurs in the group, and for the cells left out."""
    if (group["seeds"] == 1).any():
        yield "† One seed only, so the spread between seeds is unknown."
    if group["balanced_accuracy"].notna().any():
        yield (
            "The classes of the test images are unequal; chance is the share of the largest; "
            "balanced: mean over classes of the share classified correctly."
        )
    if not group["above_chance"].all():
        chance, images = group[["chance", "images"]].iloc[0]
        yield (
            f"‡ Not above chance: within 3 standard deviations of {100 * chance:.3g} % "
            f"on {images:,.0f} test images."
        )
    if (group["mixed_code"] & (group["seeds"] > 1)).any():
        yield "§ The seeds were not all run with the same code and recipe."
    yield from _stale_note(group[group["stale"]])
    older = int(group["superseded"].sum())
    if older:
        yield f"Left out: {counted(older, 'older cell')} of the same coordinates, with older code."


def _stale_note(stale: pd.DataFrame) -> Iterator[str]:
    if stale.empty:
        return
    first = [f"{row.encoder} at T={row.num_steps}" for row in stale.head(3).itertuples()]
    more = f" and {len(stale) - 3} more" if len(stale) > 3 else ""
    yield f"Run with code that has changed since then: {', '.join(first)}{more}."
