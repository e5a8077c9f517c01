"""Prepare the leaderboard of a comparison for sorting and filtering in the page."""

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from codingbench.analysis.leaderboard import best_rows
from codingbench.energy import DEFAULT_PRICING
from codingbench.report.comparison import Comparison
from codingbench.report.figures.base import short
from codingbench.views.columns import choices, energy_column
from codingbench.views.leaderboard import default_names
from codingbench.views.table import Column, shown

HIGH_FIRST: Final = (
    *("accuracy", "balanced_accuracy", "accuracy_low", "selected_accuracy"),
    "seeds",
)
"""Columns that the first click sorts in descending order."""


def table(comparison: Comparison) -> dict[str, Any]:
    """Return the rows and columns as plain data, with one energy column for each convention."""
    rows = comparison.rows
    seen: list[Any] = list(rows.itertuples())
    columns = []
    chosen = choices(default_names([DEFAULT_PRICING]), [DEFAULT_PRICING])
    named = {choice.fields[0]: choice.column for choice in chosen}
    present = shown(list(named.values()), seen)
    for field, column in named.items():
        if column not in present:
            continue
        if field != "energy_uj":
            columns.append(_column(rows, seen, field, column))
            continue
        for name, energies in comparison.energies.items():
            spent = energies["energy_uj"]
            priced = [row._replace(energy_uj=uj) for row, uj in zip(seen, spent, strict=True)]
            own = rows.assign(energy_uj=spent)
            of_convention = _column(own, priced, field, energy_column(name))
            columns.append(of_convention | {"convention": name})
    return {
        "rows": rows.index.tolist(),
        "encoders": rows["encoder"].tolist(),
        "steps": rows["num_steps"].tolist(),
        "columns": columns,
    }


def _column(rows: pd.DataFrame, seen: Sequence[Any], field: str, column: Column) -> dict[str, Any]:
    return {
        "field": field,
        "heading": column.heading.replace("\n", " "),
        "is_number": column.is_number,
        "high_first": field in HIGH_FIRST,
        "texts": [column.text(row) for row in seen],
        "values": [_value(value) for value in rows[field].tolist()],
        "best": sorted(best_rows(rows, column.ranked)) if column.ranked else [],
    }


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return None if pd.isna(value) else short(float(value), 9)
