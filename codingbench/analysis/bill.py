"""The encoder's bill: what a coding costs apart from its backbone, and what that buys.

An image's energy is split by who spends it: the *stem* (the backbone's first layers, which the
encoder owns), the *coding* (all else in the encoder: gates, neurons) and the *backbone*. What a
coding buys is its accuracy beyond that of direct coding of the same seeds at the same T.
"""

from collections.abc import Iterator
from typing import Any, Final

import pandas as pd

from codingbench.analysis.leaderboard import COLUMNS, GROUP, accuracy_decimals, seed_means
from codingbench.energy import DEFAULT_PRICING, Pricing
from codingbench.runtime.formatting import three_digits
from codingbench.schema import COUNTS

REFERENCE: Final = "direct"
"""The encoder that all others are compared with, at its default parameters."""

BILL_COLUMNS: Final[dict[str, str]] = {
    "stem_uj": "energy of the stem per image",
    "coding_uj": "energy of the encoder's other layers per image",
    "backbone_uj": "energy of the backbone per image; the three sum to energy_uj",
    "encoder_share": "(stem_uj + coding_uj) / energy_uj",
    "encoder_repeated_uj": "stem and coding if what runs once for all steps ran T times",
    "accuracy_delta": "accuracy minus direct's at the same T, mean over shared seeds; in [-1, 1]",
    "accuracy_delta_std": "sample standard deviation of the differences; null for one shared seed",
    "shared_seeds": "number of seeds that both have; null without direct at the same T",
    "energy_delta_uj": "energy minus direct's at the same T, mean over shared seeds",
    "points_per_mj": "percent of accuracy per millijoule spent on an image",
}
"""What :func:`with_bill` adds to the leaderboard's columns."""

_SAID = ["encoder", "num_steps", "images", *BILL_COLUMNS]  # of the columns; all would take longer


def with_bill(
    table: pd.DataFrame,
    cells: pd.DataFrame,
    layers: pd.DataFrame,
    pricing: Pricing = DEFAULT_PRICING,
) -> pd.DataFrame:
    """The rows with the bill of their encoder beside them; see ``BILL_COLUMNS``.

    Args:
        table: from ``leaderboard.rows.rows``, by the same convention and technology.
        cells: the table ``cells`` that ``table`` was made from.
        layers: the table ``layers`` of the cells in ``table``.
        pricing: the convention and technology that ``table`` was priced by.
    """
    parts = seed_means(table, _spent(layers, pricing))
    encoder_uj = parts["stem_uj"] + parts["coding_uj"]
    total_uj = table["energy_uj"].where(table["energy_uj"] > 0)
    billed = table.join(parts).assign(
        encoder_share=encoder_uj / total_uj,
        points_per_mj=100 * table["accuracy"] / (total_uj / 1000),
        **_against_reference(table, cells, pricing),
    )
    return billed[[*COLUMNS, *BILL_COLUMNS]]


def part_of(layer: str) -> str:
    """Who runs a layer, by its qualified name: ``stem``, ``coding`` or ``backbone``.

    >>> part_of("encoder.stem.0"), part_of("encoder"), part_of("backbone.head.linear")
    ('stem', 'coding', 'backbone')
    """
    module = f"{layer}."
    if module.startswith("encoder.stem."):
        return "stem"
    return "coding" if module.startswith("encoder.") else "backbone"


def sentences(group: pd.DataFrame) -> Iterator[str]:
    """One line per row that is not direct's: what it buys, or why that cannot be said.

    Whether a difference is more than chance, :mod:`codingbench.analysis.comparison` says.

    Args:
        group: rows of one group from :func:`with_bill`.
    """
    others = group.loc[group["encoder"] != REFERENCE, _SAID]
    for row in others[others["shared_seeds"].notna()].itertuples():
        yield _sentence(row)
    alone = others.loc[others["shared_seeds"].isna(), "num_steps"]
    if not alone.empty:
        steps = ", ".join(f"T={num_steps}" for num_steps in sorted(alone.unique()))
        yield f"no {REFERENCE} at {steps}: nothing to compare with there"


def _spent(layers: pd.DataFrame, pricing: Pricing) -> pd.DataFrame:
    """Per key the energy of each part, and of the encoder without static reuse."""
    part = layers["layer"].map(part_of)
    spent = pricing.energy_uj(layers).groupby([layers["key"], part]).sum()
    names = ["stem", "coding", "backbone"]
    parts: pd.DataFrame = spent.unstack(fill_value=0.0).reindex(columns=names, fill_value=0.0)
    again = pricing.energy_uj(_repeated(layers[part != "backbone"]))
    repeated = again.groupby(layers["key"]).sum().reindex(parts.index, fill_value=0.0)
    return parts.add_suffix("_uj").assign(encoder_repeated_uj=repeated)


def _repeated(layers: pd.DataFrame) -> pd.DataFrame:
    """The layers as if each ran anew at every step."""
    runs_once = layers.groupby(["key", "layer", "kind"])["step"].transform("max") == 1
    runs = layers["num_steps"].where(runs_once, 1)
    # The papers' formula counts the first layer once by definition, however often it runs.
    scaled = [name for name in COUNTS if name != "paper_first_macs"]
    return layers.assign(**layers[scaled].mul(runs, axis=0))


def _against_reference(
    table: pd.DataFrame, cells: pd.DataFrame, pricing: Pricing
) -> dict[str, "pd.Series[Any]"]:
    """Mean and spread of the differences, paired over the seeds that a row and direct share."""
    at = [*GROUP, "num_steps"]
    runs = table[[*at, "encoder"]].join(table["keys"].explode().rename("key"))
    facts = cells[["key", "seed", "accuracy"]].assign(energy_uj=pricing.energy_uj(cells))
    runs = runs.reset_index(names="row").merge(facts, on="key")
    is_reference = runs["encoder"] == REFERENCE
    pairs = runs[~is_reference].merge(
        runs.loc[is_reference, [*at, "seed", "accuracy", "energy_uj"]],
        on=[*at, "seed"],
        suffixes=("", "_reference"),
    )
    accuracy = (pairs["accuracy"] - pairs["accuracy_reference"]).groupby(pairs["row"])
    energies = (pairs["energy_uj"] - pairs["energy_uj_reference"]).groupby(pairs["row"])
    compared = table["encoder"].ne(REFERENCE) & table["encoder"].eq(REFERENCE).groupby(
        [table[name] for name in at], dropna=False
    ).transform("any")
    shared = accuracy.size().reindex(table.index, fill_value=0).astype("Int64")
    return {
        "accuracy_delta": accuracy.mean().reindex(table.index),
        "accuracy_delta_std": accuracy.std().reindex(table.index),
        "shared_seeds": shared.where(compared),
        "energy_delta_uj": energies.mean().reindex(table.index),
    }


def _sentence(row: Any) -> str:
    who = f"{row.encoder} at T={row.num_steps}"
    if row.shared_seeds == 0:
        return f"{who} shares no seed with {REFERENCE}: nothing to compare"
    points, cost = 100 * row.accuracy_delta, cost_text(row.energy_delta_uj, REFERENCE)
    if row.shared_seeds == 1:
        decimals = accuracy_decimals(row.images)
        return f"{who}: {signed(points, decimals)} points {cost} (1 seed: no spread)"
    spread = f"± {100 * row.accuracy_delta_std:.2f}"
    return f"{who}: {signed(points, 2)} {spread} points {cost} ({row.shared_seeds} seeds)"


def signed(points: float, decimals: int) -> str:
    """The number with its sign, and never -0.00."""
    return f"{round(points, decimals) + 0.0:+.{decimals}f}"


def cost_text(delta_uj: float, other: str) -> str:
    """What a coding costs beyond another, in words."""
    if delta_uj == 0:
        return f"for the same energy per image as {other}"
    how = "more" if delta_uj > 0 else "less"
    return f"for {three_digits(abs(delta_uj))} µJ {how} per image than {other}"
