"""The encoder's bill: the energy of a coding apart from its backbone, and what it buys.

The energy of an image is split by where it is spent: the *stem* (the backbone's first layers, which
belong to the encoder), the *coding* (everything else in the encoder, such as gates and neurons) and
the *backbone*. What a coding buys is the difference of its accuracy from direct coding, with the
same seeds and T.
"""

from collections.abc import Iterable
from typing import Any, Final

import pandas as pd

from codingbench.analysis.leaderboard import COLUMNS, GROUP, seed_means
from codingbench.analysis.lower_bounds import is_lower_bound, known_energies
from codingbench.analysis.ranks import REFERENCE
from codingbench.energy import DEFAULT_PRICING, Pricing
from codingbench.schema import COUNTS

BILL_COLUMNS: Final[dict[str, str]] = {
    "stem_uj": "energy of the stem per image",
    "coding_uj": "energy of the encoder's other layers per image",
    "backbone_uj": "energy of the backbone per image; the three sum to energy_uj",
    "encoder_share": "(stem_uj + coding_uj) / energy_uj; null where energies are lower bounds",
    "encoder_repeated_uj": "stem and coding if layers that run once for all steps ran T times",
    "accuracy_delta": "accuracy minus direct's at the same T, mean over shared seeds; in [-1, 1]",
    "accuracy_delta_std": "sample standard deviation of the differences; null for one shared seed",
    "shared_seeds": "number of seeds that both have; null without direct at the same T",
    "energy_delta_uj": "energy minus direct's at the same T, mean over shared seeds; null "
    "where one of the two is a lower bound",
    "points_per_mj": "percent of accuracy per millijoule spent on an image; null where energies "
    "are lower bounds",
}
"""The columns that :func:`with_bill` adds to the leaderboard's."""


def with_bill(
    table: pd.DataFrame,
    cells: pd.DataFrame,
    layers: pd.DataFrame,
    pricing: Pricing = DEFAULT_PRICING,
) -> pd.DataFrame:
    """Return the rows with the columns ``BILL_COLUMNS`` added.

    Args:
        table: from :func:`codingbench.analysis.leaderboard.rows`.
        cells: the table ``cells`` that ``table`` was made from.
        layers: the table ``layers`` of the cells in ``table``.
        pricing: that of ``table``.
    """
    parts = seed_means(table, _spent(layers, pricing))
    encoder_uj = parts["stem_uj"] + parts["coding_uj"]
    known_uj = known_energies(table)
    total_uj = known_uj.where(known_uj > 0)
    billed = table.join(parts).assign(
        encoder_share=encoder_uj / total_uj,
        points_per_mj=100 * table["accuracy"] / (total_uj / 1000),
        **_against_reference(table, cells, pricing),
    )
    return billed[[*COLUMNS, *BILL_COLUMNS]]


def part_of(layer: str) -> str:
    """Return the part that a layer belongs to: ``stem``, ``coding`` or ``backbone``.

    An operation that a module computes itself has its name behind a colon.

    >>> part_of("encoder.stem.0"), part_of("encoder:fft"), part_of("backbone.head.linear")
    ('stem', 'coding', 'backbone')
    """
    module = f"{layer.partition(':')[0]}."
    if module.startswith("encoder.stem."):
        return "stem"
    return "coding" if module.startswith("encoder.") else "backbone"


PARTS: Final = ("stem", "coding", "backbone")
"""The parts of a network, in order."""


def uncounted_parts(uncounted: Iterable[str]) -> set[str]:
    """Return the parts with work that was not counted; all of them where its place is unknown.

    >>> sorted(uncounted_parts(["encoder.lstm", "backbone.head:sort"]))
    ['backbone', 'coding']
    >>> sorted(uncounted_parts(["network:sort"]))
    ['backbone', 'coding', 'stem']
    """
    names = [*uncounted]
    is_unplaced = any(name.partition(":")[0] == "network" for name in names)
    return {*PARTS} if is_unplaced else {part_of(name) for name in names}


def _spent(layers: pd.DataFrame, pricing: Pricing) -> pd.DataFrame:
    """Return for each key the energy of each part, and of the encoder without static reuse."""
    part = layers["layer"].map(part_of)
    spent = pricing.energy_uj(layers).groupby([layers["key"], part]).sum(min_count=1)
    parts: pd.DataFrame = spent.unstack(fill_value=0.0).reindex(columns=[*PARTS], fill_value=0.0)
    again = pricing.energy_uj(_repeated(layers[part != "backbone"]))
    encoder_uj = again.groupby(layers["key"]).sum(min_count=1)
    repeated = encoder_uj.reindex(parts.index, fill_value=0.0)
    return parts.add_suffix("_uj").assign(encoder_repeated_uj=repeated)


def _repeated(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the layers as if each ran anew at every step."""
    runs_once = layers.groupby(["key", "layer", "kind"])["step"].transform("max") == 1
    runs = layers["num_steps"].where(runs_once, 1)
    # The papers' formula counts the first layer once by definition, however often it runs.
    scaled = [name for name in COUNTS if name != "paper_first_macs"]
    return layers.assign(**layers[scaled].mul(runs, axis=0))


def _against_reference(
    table: pd.DataFrame, cells: pd.DataFrame, pricing: Pricing
) -> dict[str, "pd.Series[Any]"]:
    """Return the differences from direct coding, paired over the seeds that both have."""
    at = [*GROUP, "num_steps"]
    runs = table[[*at, "encoder"]].join(table["keys"].explode().rename("key"))
    known_uj = pricing.energy_uj(cells).where(~is_lower_bound(cells))
    facts = cells[["key", "seed", "accuracy"]].assign(energy_uj=known_uj)
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
        "energy_delta_uj": energies.agg(_mean_of_all).reindex(table.index).astype(float),
    }


def _mean_of_all(values: "pd.Series[float]") -> float:
    """Return the mean, NaN if one of the values is unknown."""
    return float(values.mean(skipna=False))
