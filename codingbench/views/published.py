"""``codingbench leaderboard --published``: measured rows beside published results."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from codingbench.analysis.leaderboard import accuracy_decimals
from codingbench.analysis.published import MEASURED, REPORTED
from codingbench.energy import DEFAULT_PRICING, Pricing
from codingbench.views.rows import energy_text, learning_marks, learning_notes, uncounted_note
from codingbench.views.table import NONE, Column, GroupOfRows, View, or_none


def beside(table: pd.DataFrame, pricing: Pricing = DEFAULT_PRICING) -> View:
    """Show both side by side.

    Args:
        table: from :func:`codingbench.analysis.published.with_published`.
        pricing: that of the measured rows.
    """
    columns = [
        Column("coding", lambda row: row.coding, is_number=False, is_key=True),
        Column("T", lambda row: or_none(row.num_steps, str), is_key=True),
        Column("n", lambda row: or_none(row.seeds, str)),
        Column("accuracy %", _accuracy_text),
        Column("µJ/image", _energy_text, folds=True),
        Column("parameters", lambda row: or_none(row.parameters, "{:,}".format)),
        Column("network", lambda row: row.network, is_number=False),
        Column("source", lambda row: or_none(row.source, str), is_number=False),
    ]
    legend = [
        "rows without a source were measured here, with n seeds; the others are as their source "
        "reports them, unchecked, and are not ranked against the measured rows",
        str(pricing),
    ]
    return View(table, columns, _footnotes, legend, groups=_by_dataset)


def _by_dataset(table: pd.DataFrame) -> Iterator[GroupOfRows]:
    for dataset, whole in table.groupby("dataset"):
        for files, group in _by_files(whole):
            recipes = group.loc[group["origin"] == MEASURED, "recipe"].unique()
            heading = f"{dataset}{files}: measured here, and reported elsewhere"
            yield heading, f"measured: {'; '.join(recipes)}", group


def _by_files(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Divide rows of one data set by the files that were measured, beside all reported rows."""
    is_measured = table["origin"] == MEASURED
    hashes = table.loc[is_measured, "dataset_fingerprint"].fillna(NONE)
    if hashes.nunique() < 2:
        yield "", table
        return
    for files in sorted(hashes.unique()):
        chosen = hashes.index[hashes == files]
        yield f" (files {files})", table[~is_measured | table.index.isin(chosen)]


def _accuracy_text(row: Any) -> str:
    decimals = 2 if pd.isna(row.images) or row.seeds > 1 else accuracy_decimals(row.images)
    spread = "" if pd.isna(row.accuracy_std) else f" ± {100 * row.accuracy_std:.2f}"
    marks = learning_marks(row) if row.origin == MEASURED else ""
    return f"{100 * row.accuracy:.{decimals}f}{spread}{marks}"


def _energy_text(row: Any) -> str:
    text = energy_text(row.energy_uj, row.energy_is_lower_bound)
    is_reported = row.origin == REPORTED and not pd.isna(row.energy_uj)
    return f"{text} ({row.energy_convention})" if is_reported else text


def _footnotes(group: pd.DataFrame) -> Iterator[str]:
    """Yield one line for each mark, and one for each source: its place and its recipe."""
    measured = group[group["origin"] == MEASURED]
    yield from learning_notes(measured)
    yield from uncounted_note(measured)
    reported = group[group["origin"] == REPORTED].drop_duplicates("source")
    for row in reported.fillna({"note": ""}).to_dict("records"):
        note = f"; {row['note']}" if row["note"] else ""
        yield f"{row['source']}: {row['where']}; recipe: {row['recipe']}{note}"
