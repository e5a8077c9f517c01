"""Finished cells -> ranked rows.

A row is what several seeds of one (encoder, T) reached. Rows are ranked only against rows of the
same group: same data set, images, recipe, epochs, batch size, precision and backbone. What can be
asked about a row beyond that is further columns: :mod:`codingbench.analysis.energy_ranks`,
:mod:`codingbench.analysis.bill` and :mod:`codingbench.analysis.break_even` add them.
:mod:`codingbench.views.writers` shows them.
"""

import math
from typing import Final

import pandas as pd

from codingbench.analysis.ranks import RANK_COLUMNS, Reader, by_tests, by_value
from codingbench.analysis.staleness import is_stale
from codingbench.analysis.statistics import mean_interval
from codingbench.energy import DEFAULT_PRICING, Pricing
from codingbench.errors import SpecError, unknown
from codingbench.schema import COORDINATES

GROUP: Final = [
    "dataset",
    "train_samples",
    "test_samples",
    "recipe",
    "epochs",
    "batch_size",
    "micro_batch",
    "precision",
    "backbone",
]
"""What rows must share to be ranked against each other."""

COLUMNS: Final[dict[str, str]] = dict.fromkeys(
    GROUP, "as in the table cells; shared by the rows of a group"
) | {
    **RANK_COLUMNS,
    "encoder": "canonical name with its parameters",
    "num_steps": "T",
    "seeds": "number of seeds that the row averages",
    "accuracy": "mean test accuracy over seeds after the last epoch, in [0, 1]",
    "accuracy_std": "sample standard deviation over seeds; null for one seed",
    "accuracy_low": "lower end of the mean's 95 % t interval over seeds, of these test images; "
    "null for one seed",
    "accuracy_high": "its upper end",
    "selected_accuracy": "as accuracy, after the epoch of the best validation accuracy",
    "chance": "1 / number of classes",
    "above_chance": "accuracy is over 3 binomial standard deviations of its test images above it",
    "firing_rate": "spikes per neuron, step and image; mean over seeds",
    "energy_uj": "microjoules per image by energy_convention on technology; mean over seeds",
    "energy_convention": "name of the convention",
    "technology": "name of the technology",
    "parameters": "trained parameters of encoder and backbone",
    "images": "test images behind each seed's accuracy",
    "mixed_code": "the seeds were not all run by the same plug-in code, recipe and data",
    "superseded": "older cells of the same coordinates that were left out",
    "stale": "a plug-in or recipe of this package has changed since one of the cells was run",
    "keys": "keys of the cells averaged, by seed: codingbench show KEY",
}
"""Columns of :func:`rows`, in order: the keys of the JSON and CSV output."""

SORTS: Final = {
    "accuracy": "accuracy",
    "energy": "energy_uj",
    "firing-rate": "firing_rate",
    "parameters": "parameters",
    "T": "num_steps",
    "encoder": "encoder",
}
"""What ``--sort`` takes -> the column compared. Accuracy puts high values first, the rest low."""

CODE: Final = ["encoder_code", "backbone_code", "recipe_hash", "dataset_fingerprint"]
"""Columns of ``cells`` that say what code, recipe and data made a cell."""

_INTERVAL = ("accuracy", "accuracy_std", "seeds")


def rows(
    cells: pd.DataFrame,
    pricing: Pricing = DEFAULT_PRICING,
    *,
    sort: str = "accuracy",
    dataset: str | None = None,
    answers: Reader | None = None,
) -> pd.DataFrame:
    """The leaderboard: one row per group, encoder and T, its seeds averaged; see ``COLUMNS``.

    Args:
        cells: the table ``cells`` of a store.
        pricing: of the energies.
        sort: one of ``SORTS``.
        dataset: only this data set; all of them when None.
        answers: of cells, to pair them over test images too; over seeds alone when None. Read only
            for ranks by accuracy, and only if they are few enough.

    Raises:
        SpecError: no such sort, or no such data set among the cells.
    """
    if sort not in SORTS:
        raise SpecError(unknown("sort", sort, SORTS))
    if dataset is not None:
        present = cells["dataset"].unique()
        if dataset not in present:
            raise SpecError(unknown("data set in these results", dataset, present))
        cells = cells[cells["dataset"] == dataset]
    if cells.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    latest = latest_of(cells).assign(
        energy_uj=pricing.energy_uj,
        energy_convention=pricing.convention.name,
        technology=pricing.technology.name,
        stale=is_stale,
    )
    table = _sorted(_averaged(latest), sort)
    if sort == "accuracy":
        ranks = by_tests(table, latest, GROUP, answers)
    else:
        ranks = by_value(table, [*GROUP, SORTS[sort]], GROUP)
    return table.join(ranks)[list(COLUMNS)]


def seed_means(table: pd.DataFrame, per_cell: pd.DataFrame) -> pd.DataFrame:
    """For each row of ``table`` the mean of ``per_cell``, indexed by key, over the row's cells."""
    keys = table["keys"].explode()
    return per_cell.loc[keys].set_axis(keys.index).groupby(level=0).mean()


def accuracy_decimals(images: int) -> int:
    """Decimals of one run's percentage that one test image more or less can move.

    >>> [accuracy_decimals(images) for images in (100, 1000, 10_000)]
    [0, 1, 2]
    """
    return min(2, max(0, math.ceil(math.log10(images / 100))))


def latest_of(cells: pd.DataFrame) -> pd.DataFrame:
    """Per coordinates the cell finished last; ``superseded`` counts the older ones."""
    same = [name for name in COORDINATES if name != "key"]
    ordered = cells.sort_values(["finished_at", "key"])
    older = ordered.groupby(same, dropna=False)["key"].transform("size") - 1
    return ordered.assign(superseded=older).drop_duplicates(same, keep="last")


def _averaged(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per group, encoder and T. Cells must be one per seed."""
    by = [*GROUP, "encoder", "num_steps"]
    cells = cells.sort_values("seed").assign(
        chance=1 / cells["num_classes"],
        # a number for each combination: joining the texts of 100,000 cells takes seconds
        code=cells.groupby(CODE, dropna=False).ngroup(),
    )
    table = cells.groupby(by, dropna=False, as_index=False).agg(
        seeds=("seed", "size"),
        accuracy=("accuracy", "mean"),
        accuracy_std=("accuracy", "std"),  # ddof=1, so one seed has none
        selected_accuracy=("selected_accuracy", "mean"),
        chance=("chance", "first"),
        firing_rate=("firing_rate", "mean"),
        energy_uj=("energy_uj", "mean"),
        energy_convention=("energy_convention", "first"),
        technology=("technology", "first"),
        parameters=("parameters", "max"),
        images=("images", "min"),
        codes=("code", "nunique"),
        superseded=("superseded", "sum"),
        stale=("stale", "any"),
        keys=("key", list),
    )
    # Seeds share their test images, so more seeds do not narrow this.
    sigma = (table["chance"] * (1 - table["chance"]) / table["images"]) ** 0.5
    low, high = mean_interval(*(table[name].to_numpy() for name in _INTERVAL))
    return table.assign(
        accuracy_low=low,
        accuracy_high=high,
        above_chance=table["accuracy"] > table["chance"] + 3 * sigma,
        mixed_code=table["codes"] > 1,
    )


def _sorted(table: pd.DataFrame, sort: str) -> pd.DataFrame:
    order = [*GROUP, SORTS[sort], "encoder", "num_steps"]
    ascending = [name != "accuracy" for name in order]
    return table.sort_values(order, ascending=ascending, ignore_index=True)
