"""Collect the data of a report from a store: comparisons, averaged over seeds.

A grid of 10,000 cells has more curves than a figure can show. The leaderboard therefore holds every
row, while curves, firing rates and bills are limited to the first rows of each comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import pandas as pd

from codingbench.analysis.bill import with_bill
from codingbench.analysis.leaderboard import rows
from codingbench.analysis.ranks import REFERENCE
from codingbench.analysis.selection import EVERYTHING, Selection
from codingbench.analysis.statistics import mean_interval
from codingbench.energy import COMPARED, CONVENTIONS, DEFAULT_PRICING, Pricing
from codingbench.errors import SpecError
from codingbench.report.comparison import Comparison, ReportData
from codingbench.report.styles import styles
from codingbench.store.correctness import read_predictions
from codingbench.store.folder import Store
from codingbench.store.plausible import read
from codingbench.views.finished import failures_of, finished_cells
from codingbench.views.leaderboard import ranking
from codingbench.views.table import by_conditions

MOST_DETAILED: Final = 30
"""Maximum number of rows of a comparison with curves, firing rates and bills."""

MOST_DETAILED_IN_ALL: Final = 300
"""Maximum number of such rows in the whole report, shared evenly between its comparisons."""

LEAST_DETAILED: Final = 3
"""Minimum number of such rows of a comparison. In a report of very many comparisons the last ones
get none, once ``MOST_DETAILED_IN_ALL`` is used up."""

MOST_EPOCHS: Final = 100
"""Maximum number of points of a learning curve."""


@dataclass(frozen=True)
class Details:
    """The tables of the detailed rows, each with a column ``row``: the row's number."""

    steps: pd.DataFrame
    layers: pd.DataFrame
    epochs: pd.DataFrame


def collect(
    store: Store,
    pricing: Pricing = DEFAULT_PRICING,
    selection: Selection = EVERYTHING,
) -> ReportData:
    """Return everything that a report shows; comparisons are in the order of the leaderboard.

    Args:
        store: the results.
        pricing: pricing shown first; a user-defined convention is added to the shipped ones.
        selection: the cells that the report is about.

    Raises:
        SpecError: no cell is selected, or a user-defined convention has the name of a
            shipped one.
        StoreError: the store cannot be read or has no finished cell.
    """
    failures = failures_of(store, selection)
    cells = finished_cells(store, failures, selection)
    pricings = pricings_of(pricing)
    table = rows(cells, pricing, answers=partial(read_predictions, store))
    row_of = _row_of(table)
    cells = cells.assign(row=cells["key"].map(row_of)).dropna(subset="row").astype({"row": int})
    return ReportData(
        store.folders,
        selection,
        _comparisons(store, table, cells, pricings),
        failures,
        styles(table["encoder"]),
        pricings,
        pricing.convention.name,
    )


def pricings_of(pricing: Pricing) -> dict[str, Pricing]:
    """Return a pricing by the name of its convention, for ``COMPARED`` and that of ``pricing``.

    Raises:
        SpecError: a user-defined convention has the name of a shipped one.

    >>> list(pricings_of(DEFAULT_PRICING))
    ['exact', 'dense-mac', 'paper', 'neurobench', 'syops-like', 'memory']
    """
    convention, chip = pricing.convention, pricing.technology
    if CONVENTIONS.get(convention.name, convention) is not convention:
        raise SpecError(
            f"{convention.name!r} is the name of a shipped energy convention; choose another name"
        )
    compared = {name: Pricing(CONVENTIONS[name], chip) for name in COMPARED}
    return compared | {convention.name: pricing}


def _comparisons(
    store: Store,
    table: pd.DataFrame,
    cells: pd.DataFrame,
    pricings: Mapping[str, Pricing],
) -> list[Comparison]:
    parts = list(by_conditions(table))
    detailed = _detailed([group for _, _, group in parts])
    details = _details(store, table.loc[[row for rows in detailed for row in rows]])
    energies = {name: _energies(table, cells, pricing) for name, pricing in pricings.items()}
    curves = _curves(details.steps, pricings)
    epochs, rates = _epochs(details.epochs), _rates(details.layers)
    bills = _bills(table, cells, energies, details.layers, pricings)
    notes = ranking(table, folder=store.folder).notes
    return [
        Comparison(
            heading,
            conditions,
            list(notes(group)),
            group,
            cells[cells["row"].isin(group.index)],
            {name: frame.loc[group.index] for name, frame in energies.items()},
            chosen,
            _only(curves, chosen),
            _only(epochs, chosen),
            _only(rates, chosen),
            {name: frame[frame.index.isin(chosen)] for name, frame in bills.items()},
        )
        for (heading, conditions, group), chosen in zip(parts, detailed, strict=True)
    ]


def _detailed(groups: Sequence[pd.DataFrame]) -> list[list[int]]:
    """Choose each group's rows with details: those of ``direct``, then the first ones."""
    each = np.clip(MOST_DETAILED_IN_ALL // len(groups), LEAST_DETAILED, MOST_DETAILED)
    left = MOST_DETAILED_IN_ALL
    chosen = []
    for group in groups:
        is_reference = group["encoder"] == REFERENCE
        first = [*group.index[is_reference], *group.index[~is_reference]][: min(each, left)]
        chosen.append(sorted(first))
        left -= len(first)
    return chosen


def _row_of(table: pd.DataFrame) -> "pd.Series[int]":
    """Map the key of a cell to the number of its row."""
    keys = table["keys"].explode()
    return pd.Series(keys.index, index=keys.to_numpy())


def _details(store: Store, table: pd.DataFrame) -> Details:
    """Read the tables of the rows' cells; a table that the store lacks comes out empty."""
    row_of = _row_of(table)
    keys = set(row_of.index)
    frames = (read(store, name, keys) for name in ("steps", "layers", "epochs"))
    return Details(*(frame.assign(row=frame["key"].map(row_of)) for frame in frames))


def _energies(table: pd.DataFrame, cells: pd.DataFrame, pricing: Pricing) -> pd.DataFrame:
    """Return the mean over seeds and its 95 % t confidence interval; NaN for one seed."""
    per_row = pricing.energy_uj(cells).groupby(cells["row"].to_numpy())
    mean, std, seeds = per_row.mean(), per_row.std(), per_row.size()
    ends = mean_interval(mean.to_numpy(), std.to_numpy(), seeds.to_numpy(), most=np.inf)
    found = pd.DataFrame({"energy_uj": mean, "low": ends[0], "high": ends[1]})
    return found.loc[table.index]


def _curves(steps: pd.DataFrame, pricings: Mapping[str, Pricing]) -> pd.DataFrame:
    steps = steps.sort_values(["key", "step"])
    so_far = {
        name: pricing.energy_uj(steps).groupby(steps["key"]).cumsum()
        for name, pricing in pricings.items()
    }
    by_row = steps.assign(**so_far).groupby(["row", "step"])
    means = by_row[["accuracy", "firing_rate", *so_far]].mean()
    spread = by_row["accuracy"].agg(["mean", "std", "size"])
    low, high = mean_interval(*(spread[name].to_numpy() for name in ("mean", "std", "size")))
    return means.assign(low=low, high=high).reset_index()


def _epochs(epochs: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds at no more than ``MOST_EPOCHS`` epochs, with the first and last."""
    by_row = epochs.groupby(["row", "epoch"])[["train_loss", "val_accuracy"]]
    means = by_row.mean().reset_index()
    last = means.groupby("row")["epoch"].transform("max")
    every = np.ceil((last - 1) / (MOST_EPOCHS - 1)).clip(lower=1)
    kept: pd.DataFrame = means[((means["epoch"] - 1) % every == 0) | (means["epoch"] == last)]
    return kept


def _rates(layers: pd.DataFrame) -> pd.DataFrame:
    spiking = layers[layers["kind"].isin(["neuron", "code"])]
    by_layer = spiking.groupby(["row", "layer", "step"])
    means = by_layer.agg(firing_rate=("firing_rate", "mean"), position=("position", "min"))
    return means.reset_index().sort_values(["row", "position", "step"])


def _bills(
    table: pd.DataFrame,
    cells: pd.DataFrame,
    energies: Mapping[str, pd.DataFrame],
    layers: pd.DataFrame,
    pricings: Mapping[str, Pricing],
) -> dict[str, pd.DataFrame]:
    """Return the bill of each convention, for the rows whose cells all have layers."""
    there = table["keys"].map(set(layers["key"]).issuperset)
    billed = table[there]
    return {
        name: with_bill(
            billed.assign(energy_uj=energies[name]["energy_uj"]), cells, layers, pricing
        )
        for name, pricing in pricings.items()
        if len(billed)
    }


def _only(frame: pd.DataFrame, chosen: Sequence[int]) -> pd.DataFrame:
    return frame[frame["row"].isin(chosen)]
