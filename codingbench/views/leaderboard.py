"""``codingbench leaderboard``: the ranked rows, and the columns that its other tables share."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd
from rich.console import Group

from codingbench.analysis.bill import with_bill
from codingbench.analysis.break_even import with_ann
from codingbench.analysis.commands import more_seeds
from codingbench.analysis.energies import with_energies
from codingbench.analysis.energy_ranks import with_every_convention
from codingbench.analysis.leaderboard import GROUP, rows
from codingbench.analysis.published import with_published
from codingbench.analysis.ranks import MOST_CELLS, MOST_PREDICTIONS, REFERENCE, SEEDS
from codingbench.analysis.selection import EVERYTHING, Selection
from codingbench.energy import DEFAULT_PRICING, Pricing, pricings
from codingbench.errors import StoreError
from codingbench.runtime.formatting import counted
from codingbench.store.absence import of_folder
from codingbench.store.correctness import read_predictions
from codingbench.store.folder import DEFAULT_FOLDER, Store
from codingbench.store.plausible import read
from codingbench.views.asked import Asked
from codingbench.views.columns import (
    DEFAULT,
    choices,
    expanded,
    fields,
)
from codingbench.views.energies import against_ann, encoder_bill, every_convention
from codingbench.views.finished import failed_text, failures_of, finished_cells
from codingbench.views.published import beside
from codingbench.views.rows import row_notes
from codingbench.views.table import Origin, View
from codingbench.views.writers import FORMATS, check_format, written


def present(
    store: Store,
    asked: Asked | None = None,
    *,
    sort: str = "accuracy",
    selection: Selection = EVERYTHING,
    form: str = "table",
) -> str | Group:
    """Return the leaderboard of a store as text, or for the format ``table`` to be printed.

    Args:
        store: the results.
        asked: which table, with which energies and columns; None: the plain one.
        sort: as :func:`codingbench.analysis.leaderboard.rows` takes it.
        selection: the cells to rank.
        form: one of ``codingbench.views.writers.FORMATS``.

    Raises:
        SpecError: no such sort, column or format exists, no cell is selected, or two tables are
            requested at once.
        StoreError: the store cannot be read, has no finished cell, or lacks a table.
    """
    check_format(form, FORMATS)
    asked = asked or Asked()
    priced = asked.pricings
    failures = failures_of(store, selection)
    cells = finished_cells(store, failures, selection)
    answers = partial(read_predictions, store)
    table = rows(cells, priced[0], sort=sort, answers=answers)
    view = _view(store, asked, table, cells)
    averaged = cells[cells["key"].isin(table["keys"].explode())]
    if asked.every_energy:
        priced = pricings(["all"], asked.technology)
    legend = [*view.legend, *selection.sentence(), *failed_text(failures, *store.folders)]
    origin = Origin(averaged, priced, store.folders)
    return written(replace(view, origin=origin, legend=legend, top=asked.top), form)


def _view(store: Store, asked: Asked, table: pd.DataFrame, cells: pd.DataFrame) -> View:
    """Return the view that was asked for, given the rows and their cells."""
    pricing = asked.pricings[0]
    match asked.option:
        case "--energy all":
            wide = with_every_convention(table, cells, pricing.technology)
            return every_convention(wide, pricing)
        case "--bill" as option:
            layers = _layers(store, table, option)
            return encoder_bill(with_bill(table, cells, layers, pricing), pricing)
        case "--vs-ann" as option:
            layers = _layers(store, table, option)
            return against_ann(with_ann(table, cells, layers, pricing), pricing)
        case "--published":
            return beside(with_published(table), pricing)
    priced = with_energies(table, cells, asked.pricings)
    view = ranking(priced, *asked.pricings, names=asked.names, folder=store.folder)
    if asked.columns is None:
        return view
    return replace(view, data=priced[fields(choices(asked.names, asked.pricings))])


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
    table: pd.DataFrame,
    *priced: Pricing,
    names: Sequence[str] = (),
    folder: Path = DEFAULT_FOLDER,
) -> View:
    """Return the plain leaderboard.

    Args:
        table: from :func:`codingbench.analysis.leaderboard.rows`; with several pricings from
            :func:`codingbench.analysis.energies.with_energies`.
        priced: the pricings of its energies; the default one if there are none.
        names: names of columns from :func:`codingbench.views.columns.expanded`; empty for the
            default ones, with the energies of all pricings.
        folder: the results folder that hints name.
    """
    priced = priced or (DEFAULT_PRICING,)
    names = names or default_names(priced)
    columns = [choice.column for choice in choices(names, priced)]
    notes = partial(_ranking_notes, folder=folder, whole=table)
    return View(table, columns, notes, [_LEGEND, *_price_lines(priced)])


def default_names(priced: Sequence[Pricing]) -> list[str]:
    """Return the names of the default columns with the energies of these pricings."""
    return expanded(DEFAULT, [pricing.convention.name for pricing in priced])


def _price_lines(priced: Sequence[Pricing]) -> Iterator[str]:
    """Yield a line for the formula of each energy; prices stand once, as all have the same."""
    *others, last = priced
    yield _MODELLED
    yield from (f"energy ({p.convention.name}): {p.convention.summary}" for p in others)
    yield str(last)


_MODELLED: Final = "modelled: counted operations times the prices of a chip; nothing was measured"

_LEGEND: Final = (
    "n: number of seeds; accuracy: mean ± sample standard deviation over seeds; 95 % CI: "
    "confidence interval of the mean over seeds; selected: accuracy after the epoch with the best "
    "validation accuracy"
)

_MORE_SEEDS: Final = 3  # the number that hints suggest
_MOST_HINTED: Final = 8  # rows that a hint names at most


def _ranking_notes(group: pd.DataFrame, folder: Path, whole: pd.DataFrame) -> Iterator[str]:
    """Explain how the rows were ranked, then their marks.

    Ranks rest on all rows of ``whole`` that belong to the group, whether they are shown or not.
    """
    number = whole.groupby(GROUP, dropna=False).ngroup()
    yield from _rank_notes(whole[number == number[group.index[0]]])
    yield from _seeds_hint(group[group["rank"].isna() & group["seeds"].eq(1)], folder)
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
    if difference == 0:
        return f"Power: unknown, since the differences from the best row do not vary over {seeds}."
    return (
        f"Power: with {seeds}, differences from the best row below {100 * difference:.1f} points "
        "are missed in more than 20 % of cases."
    )
