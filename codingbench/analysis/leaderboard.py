"""Turn finished cells into the ranked rows of a leaderboard.

A row averages the seeds of one encoder at one T. Rows are ranked only within their group: same data
set, files, images, recipe, epochs, batch size, precision, backbone and neuron. Further columns come
from :mod:`codingbench.analysis.energy_ranks`, :mod:`codingbench.analysis.bill` and
:mod:`codingbench.analysis.break_even`.
"""

import math
from typing import Any, Final

import pandas as pd

from codingbench.analysis.chance import chance_of
from codingbench.analysis.learning import SIGN_COLUMNS, collapsed, guessing_seeds, with_signs
from codingbench.analysis.lower_bounds import (
    UNCOUNTED_COLUMNS,
    known_energies,
    uncounted_of,
    union,
)
from codingbench.analysis.ranks import RANK_COLUMNS, VALUE, Reader, by_tests, by_value
from codingbench.analysis.staleness import is_stale
from codingbench.analysis.statistics import mean_interval
from codingbench.energy import DEFAULT_PRICING, Pricing
from codingbench.errors import SpecError, unknown
from codingbench.schema import COORDINATES

GROUP: Final = [
    "dataset",
    "dataset_fingerprint",
    "train_samples",
    "test_samples",
    "recipe",
    "epochs",
    "batch_size",
    "micro_batch",
    "precision",
    "backbone",
    "neuron",
]
"""The columns that rows must share to be ranked against each other."""

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
    "evaluated_weights": "last, or mean if the exponential mean of the weights was evaluated in "
    "place of the weights themselves",
    "balanced_accuracy": "mean over classes of the share of their test images classified "
    "correctly; mean over seeds; null where classes are equal or predictions are unknown",
    "chance": "share of the most frequent class among the test labels; 1 / number of classes where "
    "classes are equal or labels are unknown",
    "above_chance": "accuracy exceeds chance by over 3 binomial standard deviations of its images",
    "firing_rate": "spikes per neuron of the backbone, step and image, whatever neurons the "
    "encoder has; mean over seeds; null if unknown",
    "energy_uj": "microjoules per image by energy_convention on technology; mean over seeds",
    "energy_convention": "name of the convention",
    "technology": "name of the technology",
    **UNCOUNTED_COLUMNS,
    "parameters": "trained parameters of encoder and backbone",
    "code_channels": "channels of the code for each channel of the image; if above 1, the stem has "
    "more inputs than that of other rows",
    "images": "test images behind each seed's accuracy",
    "mixed_code": "the seeds were not all run by the same plug-in code and recipe",
    "superseded": "number of older cells of the same coordinates that were left out",
    "stale": "a plug-in or recipe has changed since one of the cells was run",
    **SIGN_COLUMNS,
    "keys": "keys of the cells averaged, by seed: codingbench show KEY",
}
"""The columns of :func:`rows`, in order: the keys of the JSON and CSV output."""

SORTS: Final = {
    "accuracy": "accuracy",
    "energy": "energy_uj",
    "firing-rate": "firing_rate",
    "parameters": "parameters",
    "T": "num_steps",
    "encoder": "encoder",
}
"""The values of ``--sort`` and the column each compares. Only accuracy puts high values first."""

CODE: Final = ["encoder_code", "backbone_code", "neuron_code", "recipe_hash"]
"""The columns of ``cells`` with the hashes of the code and recipe that made a cell."""

_INTERVAL = ("accuracy", "accuracy_std", "seeds")


def rows(
    cells: pd.DataFrame,
    pricing: Pricing = DEFAULT_PRICING,
    *,
    sort: str = "accuracy",
    dataset: str | None = None,
    answers: Reader | None = None,
) -> pd.DataFrame:
    """Return the leaderboard: one row per group, encoder and T, averaged over its seeds.

    Args:
        cells: the table ``cells`` of a store, or a part of it.
        pricing: turns counts into energies.
        sort: one of ``SORTS``.
        dataset: only this data set; all of them when None.
        answers: reads the predictions of cells, so that tests are paired over test images as well
            as seeds, and chance is known where classes are unequal; None to pair over seeds only.
            All cells are read only for ranks by accuracy and where classes are unequal, and only if
            there are few enough predictions.

    Returns:
        A data frame with the columns ``COLUMNS``.

    Raises:
        SpecError: no such sort, or no such data set among the cells.
    """
    if sort not in SORTS:
        raise SpecError(unknown("sort", sort, SORTS))
    cells = of_dataset(cells, dataset)
    if cells.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    latest = with_signs(latest_of(cells)).assign(
        energy_uj=pricing.energy_uj,
        energy_convention=pricing.convention.name,
        technology=pricing.priced_by,
        stale=is_stale,
        uncounted=uncounted_of,
    )
    table = _sorted(_averaged(latest.join(chance_of(latest, answers))), sort)
    if sort == "accuracy":
        ranks = by_tests(table, latest, GROUP, answers)
    else:
        is_known = known_energies(table).notna() if sort == "energy" else None
        ranks = by_value(table, [*GROUP, SORTS[sort]], GROUP, is_known)
    return table.join(ranks)[list(COLUMNS)]


def of_dataset(cells: pd.DataFrame, dataset: str | None) -> pd.DataFrame:
    """Return the cells of one data set, or all cells when ``dataset`` is None.

    Raises:
        SpecError: no cell has this data set.
    """
    if dataset is None:
        return cells
    present = cells["dataset"].unique()
    if dataset not in present:
        raise SpecError(unknown("data set in these results", dataset, present))
    return cells[cells["dataset"] == dataset]


def best_rows(group: pd.DataFrame, field: str) -> set[Any]:
    """Return the index of the rows of one group to emphasise.

    By cost, these are the rows with the lowest one, or none if all rows are equal. An energy that
    is a lower bound is never the best, and none is best if a lower bound is below it. By accuracy,
    it is the row of the highest mean, if no other row shares its rank: then it is significantly
    ahead of the second. A single run is never the best.
    """
    several = group[group["seeds"] > 1]
    if field == "accuracy":
        first = several.index[several["rank"].eq(1) & several["rank_basis"].ne(VALUE)]
        return set(first) if len(first) == 1 < len(several) else set()
    costs = several[field].astype(float)
    if field.startswith("energy_"):
        known = known_energies(several, field)
        is_open = costs[known.isna()].min() < known.min()  # the true cost may be lower or higher
        costs = known.iloc[:0] if is_open else known.dropna()
    best = costs <= costs.min() * (1 + 1e-9)  # equal but for rounding
    return set() if best.all() else set(costs.index[best])


def seed_means(table: pd.DataFrame, per_cell: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of ``per_cell``, indexed by key, over the cells of each row of ``table``."""
    keys = table["keys"].explode()
    return per_cell.loc[keys].set_axis(keys.index).groupby(level=0).mean()


def accuracy_decimals(images: int) -> int:
    """Return the decimals of one run's percentage that a single test image can change.

    >>> [accuracy_decimals(images) for images in (100, 1000, 10_000)]
    [0, 1, 2]
    """
    return min(2, max(0, math.ceil(math.log10(images / 100))))


def latest_of(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the newest cell of each coordinates; ``superseded`` counts the older ones.

    Cells of other data files are not older cells of the same coordinates: their images differ.
    """
    same = [*(name for name in COORDINATES if name != "key"), "dataset_fingerprint"]
    ordered = cells.sort_values(["finished_at", "key"])
    older = ordered.groupby(same, dropna=False)["key"].transform("size") - 1
    return ordered.assign(superseded=older).drop_duplicates(same, keep="last")


def _averaged(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row per group, encoder and T, given one cell per seed."""
    by = [*GROUP, "encoder", "num_steps"]
    cells = cells.sort_values("seed").assign(
        # a number for each combination: joining the texts of 100,000 cells takes seconds
        code=cells.groupby(CODE, dropna=False).ngroup(),
        is_mean=cells["evaluated_weights"] == "mean",
        guessing_seed=guessing_seeds(cells),
    )
    table = cells.groupby(by, dropna=False, as_index=False).agg(
        seeds=("seed", "size"),
        accuracy=("accuracy", "mean"),
        accuracy_std=("accuracy", "std"),  # ddof=1, so NaN for one seed
        selected_accuracy=("selected_accuracy", "mean"),
        is_mean=("is_mean", "any"),
        balanced_accuracy=("balanced_accuracy", "mean"),
        chance=("chance", "first"),
        firing_rate=("firing_rate", "mean"),
        energy_uj=("energy_uj", "mean"),
        energy_convention=("energy_convention", "first"),
        technology=("technology", "first"),
        parameters=("parameters", "max"),
        code_channels=("code_channels", "max"),
        images=("images", "min"),
        codes=("code", "nunique"),
        superseded=("superseded", "sum"),
        stale=("stale", "any"),
        silent_layers=("silent_layers", union),
        uncounted=("uncounted", union),
        at_chance=("at_chance", "sum"),
        collapsed_seeds=("guessing_seed", collapsed),
        loss_not_fallen=("loss_not_fallen", "sum"),
        keys=("key", list),
    )
    # All seeds share the test images, so more seeds do not narrow this deviation.
    sigma = (table["chance"] * (1 - table["chance"]) / table["images"]) ** 0.5
    low, high = mean_interval(*(table[name].to_numpy() for name in _INTERVAL))
    return table.assign(
        accuracy_low=low,
        accuracy_high=high,
        evaluated_weights=table["is_mean"].map({True: "mean", False: "last"}),
        above_chance=table["accuracy"] > table["chance"] + 3 * sigma,
        mixed_code=table["codes"] > 1,
        energy_is_lower_bound=table["uncounted"].map(bool).astype(bool),
    )


def _sorted(table: pd.DataFrame, sort: str) -> pd.DataFrame:
    bounds = ["energy_is_lower_bound"] if sort == "energy" else []  # they come last
    order = [*GROUP, *bounds, SORTS[sort], "encoder", "num_steps"]
    ascending = [name != "accuracy" for name in order]
    return table.sort_values(order, ascending=ascending, ignore_index=True)
