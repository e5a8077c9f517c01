"""Measured rows and published results of the same data sets in one table, the two never ranked
against each other: networks, recipes and formulas of energy differ."""

from collections.abc import Iterator
from typing import Any, Final

import pandas as pd

from codingbench.analysis.leaderboard import accuracy_decimals
from codingbench.energy import DEFAULT_PRICING, Pricing
from codingbench.literature.published import Published, published
from codingbench.runtime.formatting import three_digits
from codingbench.views.leaderboard import Column, Group, View, or_none

MEASURED: Final = "measured"
REPORTED: Final = "reported"

PUBLISHED_COLUMNS: Final[dict[str, str]] = {
    "dataset": "name of the data set",
    "origin": f"{MEASURED}: by codingbench; {REPORTED}: in the source",
    "coding": "the encoder's name here, or what the source calls its method",
    "encoder": "the encoder's name here; null where there is none",
    "num_steps": "T; null where the source does not say or sources disagree",
    "seeds": "number of seeds that the row averages; null for what is reported",
    "accuracy": "test accuracy in [0, 1]",
    "images": "test images of each seed; null for what is reported",
    "accuracy_std": "sample standard deviation over seeds; null for one seed or what is reported",
    "energy_uj": "microjoules per image by energy_convention",
    "energy_convention": "name of the convention; null without an energy",
    "parameters": "trained parameters",
    "network": "backbone here, network there",
    "recipe": "how it was trained",
    "source": "short name of the source; null for what is measured",
    "where": "paper and table",
    "note": "what the source leaves open",
    "keys": "keys of the cells averaged; empty for what is reported",
}
"""Columns of :func:`beside_published`, in order: the keys of the JSON and CSV output."""


def with_published(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``leaderboard.rows.rows``, and what was published of their data sets.

    By data set, then by accuracy, highest first; see ``PUBLISHED_COLUMNS``.
    """
    datasets = set(table["dataset"])
    reported = [_reported(result) for result in published() if result.dataset in datasets]
    measured = [_measured(row) for row in table.itertuples()]
    frame = pd.DataFrame(measured + reported, columns=list(PUBLISHED_COLUMNS))
    whole = {
        name: frame[name].astype("Int64") for name in ("num_steps", "seeds", "images", "parameters")
    }
    return frame.assign(**whole).sort_values(
        ["dataset", "accuracy"], ascending=[True, False], ignore_index=True, kind="stable"
    )


def beside(table: pd.DataFrame, pricing: Pricing = DEFAULT_PRICING) -> View:
    """Both side by side, ``table`` from :func:`with_published`."""
    columns = [
        Column("coding", lambda row: row.coding, is_number=False),
        Column("T", lambda row: or_none(row.num_steps, str)),
        Column("n", lambda row: or_none(row.seeds, str)),
        Column("accuracy %", _accuracy_text),
        Column("µJ/image", _energy_text, folds=True),
        Column("parameters", lambda row: or_none(row.parameters, "{:,}".format)),
        Column("network", lambda row: row.network, is_number=False),
        Column("source", lambda row: or_none(row.source, str), is_number=False),
    ]
    legend = [
        "no source: measured here, n seeds; others: as reported there, not checked, and not ranked "
        "against what is measured",
        str(pricing),
    ]
    return View(table, columns, footnotes, legend, groups=_by_dataset)


def _by_dataset(table: pd.DataFrame) -> Iterator[Group]:
    for dataset, group in table.groupby("dataset"):
        recipes = group.loc[group["origin"] == MEASURED, "recipe"].unique()
        heading = f"{dataset}: measured here, and reported elsewhere"
        yield heading, f"measured: {'; '.join(recipes)}", group


def _accuracy_text(row: Any) -> str:
    decimals = 2 if pd.isna(row.images) or row.seeds > 1 else accuracy_decimals(row.images)
    spread = "" if pd.isna(row.accuracy_std) else f" ± {100 * row.accuracy_std:.2f}"
    return f"{100 * row.accuracy:.{decimals}f}{spread}"


def _energy_text(row: Any) -> str:
    text = or_none(row.energy_uj, three_digits)
    is_reported = row.origin == REPORTED and not pd.isna(row.energy_uj)
    return f"{text} ({row.energy_convention})" if is_reported else text


def footnotes(group: pd.DataFrame) -> Iterator[str]:
    """One line for each source: where it is, and its recipe."""
    reported = group[group["origin"] == REPORTED].drop_duplicates("source")
    for row in reported.fillna({"note": ""}).to_dict("records"):
        note = f"; {row['note']}" if row["note"] else ""
        yield f"{row['source']}: {row['where']}; recipe: {row['recipe']}{note}"


def _measured(row: Any) -> dict[str, Any]:
    images = f"{row.train_samples:,} images"
    return {
        **{name: getattr(row, name) for name in PUBLISHED_COLUMNS if hasattr(row, name)},
        "origin": MEASURED,
        "coding": row.encoder,
        "network": row.backbone,
        "recipe": f"{row.recipe}, {row.epochs} epochs, {images}",
    }


def _reported(result: Published) -> dict[str, Any]:
    return {
        **{name: getattr(result, name) for name in PUBLISHED_COLUMNS if hasattr(result, name)},
        "origin": REPORTED,
        "coding": result.encoder or result.method,
        "keys": [],
    }
