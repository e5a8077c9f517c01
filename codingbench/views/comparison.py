"""Comparisons of codings as tables and sentences to read."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

import pandas as pd
from rich.console import Group

from codingbench.analysis.bill import cost_text, signed
from codingbench.analysis.comparison import COLUMNS, compare, labels
from codingbench.analysis.leaderboard import accuracy_decimals
from codingbench.analysis.ranks import SEEDS
from codingbench.analysis.statistics import ALPHA
from codingbench.energy import DEFAULT_PRICING, Pricing
from codingbench.errors import SpecError, StoreError, unknown
from codingbench.plugins.specs import split_list
from codingbench.runtime.formatting import three_digits
from codingbench.store.correctness import read_predictions
from codingbench.store.folder import Store
from codingbench.store.plausible import read
from codingbench.views import writers as formats
from codingbench.views.leaderboard import Column, View, or_none

FORMATS: Final = {name: formats.FORMATS[name] for name in ("table", "json", "csv", "markdown")}
"""What ``--format`` takes."""


def present(
    store: Store,
    encoders: Sequence[str],
    dataset: str | None = None,
    num_steps: str | None = None,
    form: str = "table",
    pricing: Pricing = DEFAULT_PRICING,
) -> str | Group:
    """The comparisons of a store as text of the format ``form``, or for ``table`` to be printed.

    Args:
        store: where the cells are.
        encoders: as :func:`codingbench.analysis.comparison.labels` takes them, or lists of such.
        dataset: only this data set; all of them when None.
        num_steps: only these T, comma-separated; all of them when None.
        form: one of ``FORMATS``.
        pricing: of the energies.

    Raises:
        SpecError: an argument is none of those that exist, or there is nothing to compare.
        StoreError: the store cannot be read, or has no finished cell.
    """
    if form not in FORMATS:
        raise SpecError(unknown("format", form, FORMATS))
    cells = read(store, "cells")
    if cells.empty:
        raise StoreError(f"no finished cell in {str(store.folder)!r}; codingbench run adds some")
    names = [name for entry in encoders for name in split_list(entry)]
    asked = labels(names, cells["encoder"].unique().tolist())
    cells = _of_dataset(_at_steps(cells, num_steps), dataset)
    table = compare(cells, asked, pricing, partial(read_predictions, store))
    return FORMATS[form](view(table, pricing), [])


def view(table: pd.DataFrame, pricing: Pricing = DEFAULT_PRICING) -> View:
    """Tables and verdicts, ``table`` from :func:`codingbench.analysis.comparison.compare`."""
    tested = table["comparisons"].iloc[0]
    corrected = f"; Holm: p corrected for {tested} comparisons" if tested > 1 else ""
    legend = [
        "points: coding - other, mean over the n seeds that both have; 95 % CI and p: over other "
        f"seeds and test images{corrected}; ΔµJ: per image, coding - other",
        "selected: points at the epochs that validation images choose; d_z: mean / standard "
        "deviation over seeds; resampled: seeds and images by bootstrap, too narrow for few seeds",
        "alone right: images that one of two networks gets right, all seeds; McNemar: seeds whose "
        "networks differ at 5 %, which says nothing of other seeds",
        str(pricing),
    ]
    said = table.assign(verdict=[verdict(row) for row in table.itertuples()])
    return View(said[[*COLUMNS, "verdict"]], _MAIN, _notes, legend, further=[_FURTHER])


def verdict(row: Any) -> str:
    """What a row of :func:`codingbench.analysis.comparison.compare` says, in one sentence."""
    both, at = f"{row.encoder_a} and {row.encoder_b}", f"at T={row.num_steps}"
    if row.seeds == 0:
        return f"{both} share no seed {at}: nothing to compare"
    if row.seeds == 1:
        return f"1 seed: no claim about {both} {at}; {_of_networks(row)}"
    if row.p_holm > ALPHA:
        points = f"{row.encoder_a} {signed(100 * row.accuracy_delta, 2)} points"
        return f"{both} are not told apart {at}: {points} {_sure(row, 1)}{_outlook(row)}"
    sign = 1 if row.accuracy_delta > 0 else -1
    better, worse = (row.encoder_a, row.encoder_b)[::sign]
    return (
        f"{better} is better than {worse} {at} by {100 * abs(row.accuracy_delta):.2f} points "
        f"{_sure(row, sign)}, {cost_text(sign * row.energy_delta_uj, worse)}"
    )


def _sure(row: Any, sign: int) -> str:
    """In brackets: interval, p and what they rest on."""
    low, high = sorted(100 * sign * end for end in (row.delta_low, row.delta_high))
    after = f", {_p_number(row.p_holm)} after Holm over {row.comparisons} comparisons"
    corrected = after if row.comparisons > 1 else ""
    alone = " alone, without predictions" if row.basis == SEEDS else ""
    return (
        f"(95 % interval {signed(low, 2)} to {signed(high, 2)}, p {_p_text(row.p)}{corrected}; "
        f"{row.seeds} seeds{alone})"
    )


def _outlook(row: Any) -> str:
    """How many seeds would tell one point apart."""
    if pd.isna(row.seeds_needed):
        if 100 * row.images_floor <= 1:
            return "; no number of seeds up to 10,000 would tell 1 point apart"
        floor = f"{100 * row.images_floor:.2f} points"
        return f"; no number of seeds tells 1 point apart: the test images alone leave ± {floor}"
    if row.seeds_needed <= row.seeds:
        return ""
    return f"; a difference of 1 point would need about {row.seeds_needed:,} seeds"


def _of_networks(row: Any) -> str:
    """Of one seed: what McNemar's test says of its two networks."""
    if not row.mcnemar_p:
        return "there are no predictions to compare its two networks by"
    (only_a,), (only_b,), (p,) = row.only_a, row.only_b, row.mcnemar_p
    counts = f"{only_a:,} images that {row.encoder_a} alone gets right, {only_b:,} {row.encoder_b}"
    if p > ALPHA:
        return f"its two networks are not told apart ({counts}; McNemar p {_p_text(p)})"
    better = row.encoder_a if only_a > only_b else row.encoder_b
    return f"of its two networks that of {better} is better ({counts}; McNemar p {_p_text(p)})"


def _p_text(p: float) -> str:
    return f"{'= ' if p >= 0.001 else ''}{_p_number(p)}"


def _notes(group: pd.DataFrame) -> Iterator[str]:
    """The verdicts, then a line for each mark."""
    yield from group["verdict"]
    if group["mixed_code"].any():
        yield "§ not all cells were run by the same code, recipe and data"
    if group["stale"].any():
        yield "¶ some cell was run by code that has changed since"


def _seeds_text(row: Any) -> str:
    marks = (("†", row.seeds == 1), ("§", row.mixed_code), ("¶", row.stale))
    return f"{row.seeds}{''.join(mark for mark, applies in marks if applies)}"


def _percent(row: Any, value: float) -> str:
    """An accuracy; one run gets no more decimals than one test image more or less can move."""
    decimals = 2 if row.seeds > 1 else accuracy_decimals(row.images)
    return or_none(value, lambda known: f"{100 * known:.{decimals}f}")


def _points(row: Any, value: float) -> str:
    decimals = 2 if row.seeds > 1 else accuracy_decimals(row.images)
    return or_none(value, lambda known: signed(100 * known, decimals))


def _interval(low: float, high: float) -> str:
    return or_none(low, lambda known: f"{signed(100 * known, 1)} to {signed(100 * high, 1)}")


def _p_number(p: float) -> str:
    return or_none(p, lambda known: "< 0.001" if known < 0.001 else f"{known:.3f}")


def _joules(delta_uj: float) -> str:
    sign = "-" if delta_uj < 0 else "+"
    return or_none(delta_uj, lambda known: f"{sign if known else ''}{three_digits(abs(known))}")


def _alone(row: Any) -> str:
    return f"{sum(row.only_a):,}:{sum(row.only_b):,}" if row.only_a else or_none(None, str)


def _mcnemar(row: Any) -> str:
    differ = sum(p <= ALPHA for p in row.mcnemar_p)
    return f"{differ} of {len(row.mcnemar_p)}" if row.mcnemar_p else or_none(None, str)


_PAIR: Final = [
    Column("coding", lambda row: row.encoder_a, is_number=False),
    Column("other", lambda row: row.encoder_b, is_number=False),
    Column("T", lambda row: str(row.num_steps)),
]
_MAIN: Final = [
    *_PAIR,
    Column("n", _seeds_text),
    Column("coding\n%", lambda row: _percent(row, row.accuracy_a)),
    Column("other\n%", lambda row: _percent(row, row.accuracy_b)),
    Column("points", lambda row: _points(row, row.accuracy_delta)),
    Column("95 % CI", lambda row: _interval(row.delta_low, row.delta_high)),
    Column("p", lambda row: _p_number(row.p)),
    Column("Holm", lambda row: _p_number(row.p_holm)),
    Column("ΔµJ", lambda row: _joules(row.energy_delta_uj)),
]
_FURTHER: Final = [
    *_PAIR,
    Column("selected", lambda row: _points(row, row.selected_delta)),
    Column("d_z", lambda row: or_none(row.d_z, lambda known: signed(known, 1))),
    Column("resampled", lambda row: _interval(row.bootstrap_low, row.bootstrap_high)),
    Column("alone\nright", _alone),
    Column("odds\nratio", lambda row: or_none(row.odds_ratio, lambda known: f"{known:.2f}")),
    Column("McNemar\np ≤ 0.05", _mcnemar),
]


def _at_steps(cells: pd.DataFrame, num_steps: str | None) -> pd.DataFrame:
    if num_steps is None:
        return cells
    try:
        wanted = [int(text) for text in split_list(num_steps)]
    except ValueError:
        raise SpecError(f"T expects whole numbers, got {num_steps!r}") from None
    present = sorted(cells["num_steps"].unique())
    for steps in wanted:
        if steps not in present:
            raise SpecError(f"no cell of T={steps} (there are T={', '.join(map(str, present))})")
    return cells[cells["num_steps"].isin(wanted)]


def _of_dataset(cells: pd.DataFrame, dataset: str | None) -> pd.DataFrame:
    if dataset is None:
        return cells
    present = cells["dataset"].unique()
    if dataset not in present:
        raise SpecError(unknown("data set in these results", dataset, present))
    return cells[cells["dataset"] == dataset]
