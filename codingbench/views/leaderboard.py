"""``codingbench leaderboard``: the ranked rows, and the columns that its other tables share."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd
from rich.console import Group

from codingbench.analysis.bill import with_bill
from codingbench.analysis.break_even import with_ann
from codingbench.analysis.commands import more_seeds
from codingbench.analysis.energy_ranks import with_every_convention
from codingbench.analysis.leaderboard import rows
from codingbench.analysis.published import with_published
from codingbench.analysis.ranks import MOST_CELLS, MOST_PREDICTIONS, REFERENCE, SEEDS
from codingbench.energy import DEFAULT_PRICING, Pricing, pricings
from codingbench.errors import SpecError, StoreError
from codingbench.runtime.formatting import counted, three_digits
from codingbench.store.absence import of_folder
from codingbench.store.correctness import read_predictions
from codingbench.store.folder import DEFAULT_FOLDER, Store
from codingbench.store.plausible import read
from codingbench.views.energies import against_ann, encoder_bill, every_convention
from codingbench.views.finished import failed_text, failures_of, finished_cells
from codingbench.views.published import beside
from codingbench.views.rows import (
    ACCURACY,
    BALANCED,
    ENCODER,
    FIRING_RATE,
    SEEDS_COLUMN,
    STEPS,
    interval_text,
    percent_text,
    row_notes,
)
from codingbench.views.table import Column, Origin, View, or_none
from codingbench.views.writers import FORMATS, check_format, written


def present(
    store: Store,
    pricing: Pricing = DEFAULT_PRICING,
    *,
    sort: str = "accuracy",
    dataset: str | None = None,
    form: str = "table",
    every_energy: bool = False,
    bill: bool = False,
    vs_ann: bool = False,
    beside_published: bool = False,
) -> str | Group:
    """Return the leaderboard of a store as text, or for the format ``table`` to be printed.

    Args:
        store: the results.
        pricing: turns counts into energies.
        sort, dataset: as :func:`codingbench.analysis.leaderboard.rows` takes them.
        form: one of ``codingbench.views.writers.FORMATS``.
        every_energy: show the energies by every convention, at the technology of ``pricing``.
        bill: show what each encoder costs and what that buys.
        vs_ann: show each row beside the ANNs of the same shape.
        beside_published: show published results on the same data sets.

    Raises:
        SpecError: no such sort, data set or format exists, or two tables are requested at once.
        StoreError: the store cannot be read, has no finished cell, or lacks a table.
    """
    check_format(form, FORMATS)
    _check_one_table(
        {
            "--bill": bill,
            "--vs-ann": vs_ann,
            "--published": beside_published,
            "--energy all": every_energy,
        }
    )
    failures = failures_of(store, dataset)
    cells = finished_cells(store, failures)
    answers = partial(read_predictions, store)
    table = rows(cells, pricing, sort=sort, dataset=dataset, answers=answers)
    if every_energy:
        view = every_convention(with_every_convention(table, cells, pricing.technology), pricing)
    elif bill:
        layers = _layers(store, table, "--bill")
        view = encoder_bill(with_bill(table, cells, layers, pricing), pricing)
    elif vs_ann:
        layers = _layers(store, table, "--vs-ann")
        view = against_ann(with_ann(table, cells, layers, pricing), pricing)
    elif beside_published:
        view = beside(with_published(table), pricing)
    else:
        view = ranking(table, pricing, store.folder)
    averaged = cells[cells["key"].isin(table["keys"].explode())]
    priced = pricings(["all"], pricing.technology) if every_energy else [pricing]
    legend = [*view.legend, *failed_text(failures, store.folder)]
    return written(replace(view, origin=Origin(averaged, priced), legend=legend), form)


def _check_one_table(requested: dict[str, bool]) -> None:
    first, *others = [option for option, is_given in requested.items() if is_given] or [""]
    if others:
        raise SpecError(f"{first} and {others[0]} are different tables: expected one of them")


def _layers(store: Store, table: pd.DataFrame, option: str) -> pd.DataFrame:
    """Return the table ``layers`` of the cells that ``table`` averages."""
    keys = set(table["keys"].explode())
    layers = read(store, "layers", keys)
    present_keys = len(keys & set(layers["key"]))
    if present_keys < len(keys):
        raise StoreError(
            f"{option} needs the table 'layers': {str(store.folder)!r} has it for {present_keys} "
            f"of the {len(keys)} cells shown"
        )
    return layers


def ranking(
    table: pd.DataFrame, pricing: Pricing = DEFAULT_PRICING, folder: Path = DEFAULT_FOLDER
) -> View:
    """Return the plain leaderboard.

    Args:
        table: from :func:`codingbench.analysis.leaderboard.rows`.
        pricing: the pricing of its energies.
        folder: the results folder that hints name.
    """
    heading = f"µJ/image\n({pricing.convention.name})"
    columns = [
        Column("rank", lambda row: or_none(row.rank, str), is_optional=True),
        Column("same", lambda row: or_none(row.letters, str), is_optional=True),
        ENCODER,
        STEPS,
        SEEDS_COLUMN,
        ACCURACY,
        BALANCED,
        Column(
            "95 % CI",
            lambda row: interval_text(row.accuracy_low, row.accuracy_high),
            is_optional=True,
        ),
        Column("selected\n%", lambda row: percent_text(row, row.selected_accuracy)),
        FIRING_RATE,
        Column(heading, lambda row: three_digits(row.energy_uj), "energy_uj"),
        Column("parameters", lambda row: f"{row.parameters:,}", "parameters"),
    ]
    return View(table, columns, partial(_ranking_notes, folder=folder), [_LEGEND, str(pricing)])


_LEGEND: Final = (
    "n: number of seeds; accuracy: mean ± sample standard deviation over seeds; 95 % CI: "
    "confidence interval of the mean over seeds; selected: accuracy after the epoch with the best "
    "validation accuracy"
)

_MORE_SEEDS: Final = 3  # the number that hints suggest
_MOST_HINTED: Final = 8  # rows that a hint names at most


def _ranking_notes(group: pd.DataFrame, folder: Path) -> Iterator[str]:
    """Explain how the rows were ranked, then their marks."""
    yield from _rank_notes(group)
    yield from _seeds_hint(group[group["rank"].isna()], folder)
    yield from row_notes(group)


def _seeds_hint(lone: pd.DataFrame, folder: Path) -> Iterator[str]:
    """Say how rows with a single seed get more of them, with all else as it was."""
    if lone.empty:
        return
    first = lone.head(_MOST_HINTED)
    which = "" if len(first) == len(lone) else f" to the first {len(first)} of them"
    yield f"Rows with a single seed have no rank. To add seeds{which}:"
    for command in more_seeds(first, _MORE_SEEDS):
        yield f"  {command}{of_folder(folder)}"


def _rank_notes(group: pd.DataFrame) -> Iterator[str]:
    """Say what ranks and letters rest on, and which differences the test can find."""
    first: Any = next(group.itertuples())
    if not first.comparisons:
        return
    ranked = group[group["rank"].notna()]
    tests = f"5 % level, paired over {first.rank_basis}"
    pairs = f"Holm's correction for {counted(first.comparisons, 'pair')}"
    if first.rank_basis == SEEDS:
        tests += (
            "; test images are not paired, because predictions are missing or there are more than "
            f"{MOST_CELLS:,} cells or {MOST_PREDICTIONS:,} predictions"
        )
    if ranked["letters"].eq("a").all():
        # one coding may have rows of several T
        rows_text = "codings" if group["num_steps"].nunique() == 1 else "rows"
        yield (
            f"No two {rows_text} differ significantly in accuracy, so all "
            f"{len(ranked)} share rank 1 ({pairs}; {tests})."
        )
    else:
        yield f"rank: {_compared(ranked)} ({tests})."
        if ranked["letters"].notna().any():
            yield f"same: rows without a common letter differ significantly ({pairs})."
    yield _power_note(first.detectable_difference, ranked)


def _compared(ranked: pd.DataFrame) -> str:
    """Return what the rank counts: the rows that each row was compared with."""
    is_reference = ranked["encoder"].eq(REFERENCE)
    if is_reference.any() and not is_reference.iloc[0]:
        return (
            f"1, plus 1 if the best row is significantly better, plus 1 if {REFERENCE} at the same "
            "T is; Holm's correction for the comparisons with each"
        )
    return (
        "2 if the best row is significantly better, else 1; Holm's correction for "
        f"{counted(len(ranked) - 1, 'comparison')}"
    )


def _power_note(difference: float, ranked: pd.DataFrame) -> str:
    counts = ranked["seeds"].unique()
    seeds = f"{counts[0]} seeds" if len(counts) == 1 else "these seeds"
    if pd.isna(difference):
        return f"Power: with {seeds}, no difference between rows is likely to be found."
    return (
        f"Power: with {seeds}, differences from the best row below {100 * difference:.1f} points "
        "are missed in more than 20 % of cases."
    )
