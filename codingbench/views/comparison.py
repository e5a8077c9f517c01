"""``codingbench compare``: comparisons of codings as tables and verdicts."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

import pandas as pd
from rich.console import Group

from codingbench.analysis.comparison import COLUMNS, at_steps, compare, labels
from codingbench.analysis.leaderboard import accuracy_decimals, of_dataset
from codingbench.analysis.ranks import SEEDS
from codingbench.analysis.statistics import ALPHA
from codingbench.energy import DEFAULT_PRICING, Pricing
from codingbench.plugins.specs import split_list
from codingbench.runtime.formatting import three_digits
from codingbench.store.correctness import read_predictions
from codingbench.store.folder import Store
from codingbench.views.energies import cost_text, signed
from codingbench.views.finished import finished_cells
from codingbench.views.rows import COLLAPSES, seeds_text
from codingbench.views.table import NONE, Column, View, or_none
from codingbench.views.writers import TEXT_FORMATS, check_format, written


def present(
    store: Store,
    encoders: Sequence[str],
    dataset: str | None = None,
    num_steps: str | None = None,
    form: str = "table",
    pricing: Pricing = DEFAULT_PRICING,
) -> str | Group:
    """Return the comparisons of a store as text, or for the format ``table`` to be printed.

    Args:
        store: the results.
        encoders: as :func:`codingbench.analysis.comparison.labels` takes them, or comma-separated
            lists of them.
        dataset: only this data set; all of them when None.
        num_steps: only these T, comma-separated; all of them when None.
        form: one of ``codingbench.views.writers.TEXT_FORMATS``.
        pricing: turns counts into energies.

    Raises:
        SpecError: an argument names something that does not exist, or nothing can be compared.
        StoreError: the store cannot be read, or has no finished cell.
    """
    check_format(form, TEXT_FORMATS)
    cells = finished_cells(store)
    names = [name for entry in encoders for name in split_list(entry)]
    known = labels(names, cells["encoder"].unique().tolist())
    cells = of_dataset(at_steps(cells, num_steps), dataset)
    table = compare(cells, known, pricing, partial(read_predictions, store))
    return written(view(table, pricing), form)


def view(table: pd.DataFrame, pricing: Pricing = DEFAULT_PRICING) -> View:
    """Return two tables and the verdicts, given :func:`codingbench.analysis.comparison.compare`."""
    tested = table["comparisons"].iloc[0]
    corrected = f"; Holm: p corrected for {tested} comparisons" if tested > 1 else ""
    legend = [
        "points: accuracy of the coding minus that of the other in percentage points, mean over "
        "the n seeds that both have; 95 % CI and p: for other seeds and other test images, "
        "if differences between seeds are normal (rare collapses of single seeds break the "
        f"coverage){corrected}; ΔµJ: energy per image of the coding minus that of the other",
        "selected: points after the epochs with the best validation accuracy; d_z: mean / standard "
        "deviation over seeds; resampled: bootstrap interval over seeds and images, which is too "
        "narrow for few seeds",
        "alone right: images that only one of the two networks classifies correctly, all seeds "
        "together; McNemar: seeds whose two networks differ significantly, which says nothing "
        "about other seeds",
        str(pricing),
    ]
    with_verdicts = table.assign(verdict=[verdict(row) for row in table.itertuples()])
    return View(with_verdicts[[*COLUMNS, "verdict"]], _MAIN, _notes, legend, further=[_FURTHER])


# --- verdicts -------------------------------------------------------------------------------------


def verdict(row: Any) -> str:
    """Return one sentence about a row of :func:`codingbench.analysis.comparison.compare`."""
    both, at = f"{row.encoder_a} and {row.encoder_b}", f"at T={row.num_steps}"
    if row.seeds == 0:
        return f"{both} have no seed in common {at}, so they cannot be compared"
    if row.seeds == 1:
        return f"One seed allows no conclusion about {both} {at}; {_of_networks(row)}"
    if row.p_holm > ALPHA:
        points = signed(100 * row.accuracy_delta, 2)
        return (
            f"The difference between {both} {at} is not significant: {points} points for "
            f"{row.encoder_a} {_evidence(row, 1)}{_outlook(row)}"
        )
    sign = 1 if row.accuracy_delta > 0 else -1
    better, worse = (row.encoder_a, row.encoder_b)[::sign]
    return (
        f"{better} is better than {worse} {at} by {100 * abs(row.accuracy_delta):.2f} points "
        f"{_evidence(row, sign)}, {cost_text(sign * row.energy_delta_uj, worse)}"
    )


def _evidence(row: Any, sign: int) -> str:
    """Return the interval, p and their basis in brackets."""
    low, high = sorted(100 * sign * end for end in (row.delta_low, row.delta_high))
    after = f", {_p_number(row.p_holm)} after Holm's correction for {row.comparisons} comparisons"
    corrected = after if row.comparisons > 1 else ""
    basis = " only, because predictions are missing" if row.basis == SEEDS else ""
    return (
        f"(95 % confidence interval {signed(low, 2)} to {signed(high, 2)}; p {_p_text(row.p)}"
        f"{corrected}; {row.seeds} seeds{basis})"
    )


def _outlook(row: Any) -> str:
    """Return the number of seeds that would narrow the interval to one point to either side."""
    if pd.isna(row.seeds_needed):
        if 100 * row.images_floor <= 1:
            return "; not even 10,000 seeds would narrow the interval to ±1 point"
        floor = f"±{100 * row.images_floor:.2f} points"
        return (
            "; no number of seeds narrows the interval to ±1 point, because the test images alone "
            f"leave {floor}"
        )
    if row.seeds_needed <= row.seeds:
        return ""
    return f"; about {row.seeds_needed:,} seeds would narrow the interval to ±1 point"


def _of_networks(row: Any) -> str:
    """Return what McNemar's test says about the two networks of a single seed."""
    if not row.mcnemar_p:
        return "without predictions, its two networks cannot be compared either"
    (only_a,), (only_b,), (p,) = row.only_a, row.only_b, row.mcnemar_p
    counts = (
        f"{only_a:,} images that only {row.encoder_a} classifies correctly, "
        f"{only_b:,} only {row.encoder_b}"
    )
    if p > ALPHA:
        return f"its two networks do not differ significantly ({counts}; McNemar p {_p_text(p)})"
    better = row.encoder_a if only_a > only_b else row.encoder_b
    return f"of its two networks, that of {better} is better ({counts}; McNemar p {_p_text(p)})"


def _p_text(p: float) -> str:
    return f"{'= ' if p >= 0.001 else ''}{_p_number(p)}"


def _notes(group: pd.DataFrame) -> Iterator[str]:
    """Yield the verdicts, then a line for each mark."""
    yield from group["verdict"]
    if (group["seeds"] == 1).any():
        yield "† One seed only: no test, no interval."
    if group["mixed_code"].any():
        yield "§ Not all cells were run with the same code and recipe."
    collapses = [*_collapses(group)]
    yield from collapses
    if collapses:
        yield f"{COLLAPSES}."
    if group["stale"].any():
        yield "¶ Some cell was run with code that has changed since then."
    yield from _stems(group)
    rows_shown: Iterator[Any] = group.itertuples()
    yield from dict.fromkeys(
        f"‡ {encoder} at T={row.num_steps}: {sign}."
        for row in rows_shown
        for encoder, signs in ((row.encoder_a, row.signs_a), (row.encoder_b, row.signs_b))
        for sign in signs
    )


def _stems(group: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each pair of codings behind different stems."""
    pairs: Iterator[Any] = group[group["code_channels_a"] != group["code_channels_b"]].itertuples()
    yield from dict.fromkeys(
        f"The stems of {row.encoder_a} and {row.encoder_b} differ: their codes have "
        f"{row.code_channels_a} and {row.code_channels_b} channels for each channel of the image."
        for row in pairs
    )


def _collapses(group: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each row of the leaderboard with seeds that collapsed to chance."""
    found: Iterator[Any] = group.itertuples()
    lines = (
        f"{encoder} at T={row.num_steps}: {seeds_text(seeds)} collapsed to chance while others "
        "learned."
        for row in found
        for encoder, seeds in ((row.encoder_a, row.collapsed_a), (row.encoder_b, row.collapsed_b))
        if seeds
    )
    yield from dict.fromkeys(lines)


# --- columns --------------------------------------------------------------------------------------


def _seeds_text(row: Any) -> str:
    marks = (
        ("†", row.seeds == 1),
        ("§", row.mixed_code),
        ("¶", row.stale),
        ("‡", row.signs_a or row.signs_b),
    )
    return f"{row.seeds}{''.join(mark for mark, applies in marks if applies)}"


def _decimals(row: Any) -> int:
    """Return the decimals of a percentage: a single run gets those that one image can change."""
    return 2 if row.seeds > 1 else accuracy_decimals(row.images)


def _percent(row: Any, value: float) -> str:
    return or_none(value, lambda known: f"{100 * known:.{_decimals(row)}f}")


def _points(row: Any, value: float) -> str:
    return or_none(value, lambda known: signed(100 * known, _decimals(row)))


def _interval(low: float, high: float) -> str:
    return or_none(low, lambda known: f"{signed(100 * known, 1)} to {signed(100 * high, 1)}")


def _p_number(p: float) -> str:
    return or_none(p, lambda known: "< 0.001" if known < 0.001 else f"{known:.3f}")


def _joules(delta_uj: float) -> str:
    sign = "-" if delta_uj < 0 else "+"
    return or_none(delta_uj, lambda known: f"{sign if known else ''}{three_digits(abs(known))}")


def _alone(row: Any) -> str:
    return f"{sum(row.only_a):,}:{sum(row.only_b):,}" if row.only_a else NONE


def _mcnemar(row: Any) -> str:
    differ = sum(p <= ALPHA for p in row.mcnemar_p)
    return f"{differ} of {len(row.mcnemar_p)}" if row.mcnemar_p else NONE


def _balanced(side: str) -> Column:
    """Return the column of the balanced accuracy of one coding, where classes are unequal."""
    name = {"a": "coding", "b": "other"}[side]

    def text(row: Any) -> str:
        return _percent(row, getattr(row, f"balanced_accuracy_{side}"))

    return Column(f"{name}\nbalanced", text, is_optional=True)


_PAIR: Final = [
    Column("coding", lambda row: row.encoder_a, is_number=False, is_key=True),
    Column("other", lambda row: row.encoder_b, is_number=False, is_key=True),
    Column("T", lambda row: str(row.num_steps), is_key=True),
]
_MAIN: Final = [
    *_PAIR,
    Column("n", _seeds_text),
    Column("coding\n%", lambda row: _percent(row, row.accuracy_a)),
    Column("other\n%", lambda row: _percent(row, row.accuracy_b)),
    *(_balanced(side) for side in "ab"),
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
    Column("odds\nratio", lambda row: or_none(row.odds_ratio, "{:.2f}".format)),
    Column("McNemar\np ≤ 0.05", _mcnemar),
]
