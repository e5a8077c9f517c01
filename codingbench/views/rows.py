"""The columns and notes that the tables of ranked rows have in common."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from codingbench.analysis.leaderboard import accuracy_decimals
from codingbench.analysis.learning import LEVEL
from codingbench.runtime.formatting import at_least, counted, first_few, seeds_text
from codingbench.views.table import NONE, Column, or_none

COLLAPSES: Final = (
    "Confidence intervals and tests assume normal differences between seeds; rare collapses of "
    "single seeds break their coverage"
)

LOWER_BOUNDS: Final = "Energies are lower bounds, without rank or ratio, where work was not counted"


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


def energy_text(energy_uj: Any, is_lower_bound: bool = False) -> str:
    """Return an energy with three digits, marked if it is a lower bound; a dash if unknown."""
    return or_none(energy_uj, lambda known: at_least(known, is_lower_bound))


def _seeds_text(row: Any) -> str:
    mark = "†" if row.seeds == 1 else "§" if row.mixed_code else ""
    return f"{row.seeds}{mark}"


def learning_marks(row: Any) -> str:
    """Return the marks that :func:`learning_notes` explains."""
    marks = (
        ("‡", row.at_chance or not row.above_chance),
        ("∅", row.silent_layers),
        ("↗", row.loss_not_fallen),
    )
    return "".join(mark for mark, applies in marks if applies)


def _accuracy_text(row: Any) -> str:
    spread = f" ± {100 * row.accuracy_std:.2f}" if row.seeds > 1 else ""
    return f"{percent_text(row, row.accuracy)}{spread}{learning_marks(row)}"


ENCODER: Final = Column("encoder", lambda row: row.encoder, is_number=False, is_key=True)
STEPS: Final = Column("T", lambda row: str(row.num_steps), is_key=True)
SEEDS_COLUMN: Final = Column("n", _seeds_text)
ACCURACY: Final = Column("accuracy %", _accuracy_text, "accuracy")
BALANCED: Final = Column(
    "balanced\n%",
    lambda row: or_none(row.balanced_accuracy, lambda known: percent_text(row, known)),
    is_optional=True,
)
FIRING_RATE: Final = Column(
    "firing\nrate %",
    lambda row: or_none(row.firing_rate, lambda known: f"{100 * known:.2f}"),
    "firing_rate",
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
    yield from learning_notes(group)
    yield from uncounted_note(group)
    yield from _stem_note(group)
    if (group["mixed_code"] & (group["seeds"] > 1)).any():
        yield "§ The seeds were not all run with the same code and recipe."
    yield from _mean_note(int(group["evaluated_weights"].eq("mean").sum()), len(group))
    yield from _stale_note(group[group["stale"]])
    yield from _unknown_energy_note(group)
    older = int(group["superseded"].sum())
    if older:
        yield f"Left out: {counted(older, 'older cell')} of the same coordinates, with older code."


def uncounted_note(group: pd.DataFrame) -> Iterator[str]:
    """Name the rows with work that was not counted, and the modules that did it."""
    rows: Iterator[Any] = group[group["energy_is_lower_bound"].astype(bool)].itertuples()
    names = [f"{row.encoder} at T={row.num_steps} ({first_few(row.uncounted)})" for row in rows]
    if names:
        yield f"≥ {LOWER_BOUNDS}: {first_few(names)}."


def _mean_note(means: int, rows: int) -> Iterator[str]:
    """Say if rows evaluated a mean of the weights, which all rows of a recipe usually do."""
    if means:
        which = "All rows" if means == rows else f"{means} of {counted(rows, 'row')}"
        yield f"{which} evaluated the exponential mean of the weights over training steps."


def _unknown_energy_note(group: pd.DataFrame) -> Iterator[str]:
    """Say why rows have a dash for their energy; tables of all conventions have no such column."""
    if "energy_uj" in group and (unknown := int(group["energy_uj"].isna().sum())):
        name = group["energy_convention"].iloc[0]
        yield (
            f"Energy unknown (—) for {counted(unknown, 'row')}: counted by an earlier version, "
            f"without what the convention {name} needs."
        )


def _stem_note(group: pd.DataFrame) -> Iterator[str]:
    """Say which rows have a stem with more inputs than the others."""
    wider: Iterator[Any] = group[group["code_channels"] > 1].itertuples()
    found = {f"{row.encoder} ({row.code_channels:.0f} x)": None for row in wider}
    if found:
        yield (
            "Codes with channels of their own have a stem with more inputs than that of the other "
            f"rows: {first_few(found)}."
        )


def _stale_note(stale: pd.DataFrame) -> Iterator[str]:
    if stale.empty:
        return
    names = (f"{row.encoder} at T={row.num_steps}" for row in stale.itertuples())
    yield f"Run with code that has changed since then: {first_few(names)}."


def learning_notes(group: pd.DataFrame) -> Iterator[str]:
    """Yield one line for each sign that cells of the group failed to learn."""
    is_above = group["above_chance"].astype(bool)
    if not is_above.all():
        chance, images = group[["chance", "images"]].iloc[0]
        yield (
            f"‡ Not above chance: within 3 standard deviations of {100 * chance:.3g} % "
            f"on {images:,.0f} test images."
        )
    if (group["at_chance"].astype(bool) & is_above).any():
        yield (
            "‡ The accuracy of single cells is not above the share of the largest class (one-sided "
            f"binomial test, level {100 * LEVEL:.3g} %): {_counted_cells(group, 'at_chance')}."
        )
    if len(gone := group[group["collapsed_seeds"].astype(bool)]):
        yield f"Collapsed to chance while other seeds learned: {_collapses(gone)}. {COLLAPSES}."
    if len(silent := group[group["silent_layers"].astype(bool)]):
        rows: Iterator[Any] = silent.itertuples()
        names = (
            f"{row.encoder} at T={row.num_steps} ({first_few(row.silent_layers)})" for row in rows
        )
        yield f"∅ Layers that never spiked on the test images: {first_few(names)}."
    if group["loss_not_fallen"].any():
        yield (
            "↗ The loss never fell (not below that of the first epoch, or of equal logits): "
            f"{_counted_cells(group, 'loss_not_fallen')}."
        )


def _collapses(rows: pd.DataFrame) -> str:
    """Name the rows and those of their seeds that collapsed."""
    found: Iterator[Any] = rows.itertuples()
    return first_few(
        f"{row.encoder} at T={row.num_steps} ({seeds_text(row.collapsed_seeds)})" for row in found
    )


def _counted_cells(group: pd.DataFrame, column: str) -> str:
    """Name the rows with a count above 0 in ``column``, each with the count and its seeds."""
    rows: Iterator[Any] = group[group[column] > 0].itertuples()
    return first_few(
        f"{row.encoder} at T={row.num_steps} "
        f"({getattr(row, column)} of {counted(row.seeds, 'seed')})"
        for row in rows
    )
