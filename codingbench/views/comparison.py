"""``codingbench compare``: comparisons as tables and verdicts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any, Final

import pandas as pd
from rich.console import Group

from codingbench.analysis.comparison import COLUMNS, compare, labels
from codingbench.analysis.leaderboard import accuracy_decimals
from codingbench.analysis.ranks import SEEDS
from codingbench.analysis.selection import EVERYTHING, Selection
from codingbench.analysis.sides import chosen_sides
from codingbench.analysis.statistics import ALPHA
from codingbench.energy import DEFAULT_PRICING, Pricing
from codingbench.plugins.specs import split_list
from codingbench.runtime.formatting import first_few, seeds_text, three_digits
from codingbench.store.correctness import read_predictions
from codingbench.store.folder import Store
from codingbench.views.energies import cost_text, signed
from codingbench.views.finished import finished_cells
from codingbench.views.rows import COLLAPSES
from codingbench.views.table import NONE, Column, View, or_none
from codingbench.views.writers import TEXT_FORMATS, check_format, written


def present(
    store: Store,
    encoders: Sequence[str],
    selection: Selection = EVERYTHING,
    form: str = "table",
    pricing: Pricing = DEFAULT_PRICING,
    between: str = "encoders",
    against: tuple[int, ...] = (),
) -> str | Group:
    """Return the comparisons of a store as text, or for the format ``table`` to be printed.

    Args:
        store: the results.
        encoders: as :func:`codingbench.analysis.comparison.labels` takes them, or comma-separated
            lists of them. If codings are not what is compared, these or else all are shown.
        selection: the cells to compare. Its backbones, recipes or T are compared in their order.
        form: one of ``codingbench.views.writers.TEXT_FORMATS``.
        pricing: turns counts into energies.
        between: one of ``codingbench.analysis.comparison.BETWEEN``.
        against: values of T; those of ``selection`` are compared with each of these.

    Raises:
        SpecError: an argument names something that does not exist, or nothing can be compared.
        StoreError: the store cannot be read, or has no finished cell.
    """
    check_format(form, TEXT_FORMATS)
    names = [name for entry in encoders for name in split_list(entry)]
    answers = partial(read_predictions, store)
    cells = finished_cells(store)
    if between == "encoders":
        sides = labels(names, cells["encoder"].unique().tolist())
        table = compare(selection.of(cells), sides, pricing, answers)
    else:
        cells, sides = chosen_sides(cells, between, selection, names, against)
        table = compare(cells, sides, pricing, answers, between=between, against=against)
    shown = view(table, pricing)
    return written(replace(shown, legend=[*shown.legend, *selection.sentence()]), form)


def view(table: pd.DataFrame, pricing: Pricing = DEFAULT_PRICING) -> View:
    """Return two tables and the verdicts, given :func:`codingbench.analysis.comparison.compare`."""
    tested = table["comparisons"].iloc[0]
    corrected = f"; Holm: p corrected for {tested} comparisons" if tested > 1 else ""
    between = table["between"].iloc[0]
    side = "coding" if between == "encoders" else "first"
    legend = [
        f"points: accuracy of the {side} minus that of the other in percentage points, mean over "
        "the n seeds that both have; 95 % CI and p: for other seeds and other test images, "
        "if differences between seeds are normal (rare collapses of single seeds break the "
        f"coverage){corrected}; ΔµJ: energy per image of the {side} minus that of the other",
        "selected: points after the epochs with the best validation accuracy; d_z: mean / standard "
        "deviation over seeds; resampled: bootstrap interval over seeds and images, which is too "
        "narrow for few seeds",
        "alone right: images that only one of the two networks classifies correctly, all seeds "
        "together; McNemar: seeds whose two networks differ significantly, which says nothing "
        "about other seeds",
        str(pricing),
    ]
    main, further = (_columns(between, columns) for columns in (_MAIN, _FURTHER))
    with_verdicts = table.assign(verdict=[verdict(row) for row in table.itertuples()])
    return View(with_verdicts[[*COLUMNS, "verdict"]], main, _notes, legend, further=[further])


# --- verdicts -------------------------------------------------------------------------------------


def verdict(row: Any) -> str:
    """Return one sentence about a row of :func:`codingbench.analysis.comparison.compare`."""
    both, at = f"{row.a} and {row.b}", _at(row)
    if row.seeds == 0:
        return f"{both} have no seed in common {at}, so they cannot be compared"
    if row.seeds == 1:
        return f"One seed allows no conclusion about {both} {at}; {_of_networks(row)}"
    if row.p_holm > ALPHA:
        points = signed(100 * row.accuracy_delta, 2)
        return (
            f"The difference between {both} {at} is not significant: {points} points for "
            f"{row.a} {_evidence(row, 1)}{_outlook(row)}"
        )
    sign = 1 if row.accuracy_delta > 0 else -1
    better, worse = (row.a, row.b)[::sign]
    return (
        f"{better} is better than {worse} {at} by {100 * abs(row.accuracy_delta):.2f} points "
        f"{_evidence(row, sign)}, {cost_text(sign * row.energy_delta_uj, worse)}"
    )


def _at(row: Any) -> str:
    """Return what the two sides have in common."""
    steps = [] if row.between == "T" else [f"at T={row.num_steps}"]
    coding = [] if row.between == "encoders" else [f"with {row.encoder_a}"]
    return " ".join([*coding, *steps])


def _full_names(row: Any) -> tuple[str, str]:
    """Return the names of both sides with their coding and T."""
    if row.between == "encoders":
        return f"{row.a} at T={row.num_steps}", f"{row.b} at T={row.num_steps}"
    return f"{row.a} {_at(row)}", f"{row.b} {_at(row)}"


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
    counts = f"{only_a:,} images that only {row.a} classifies correctly, {only_b:,} only {row.b}"
    if p > ALPHA:
        return f"its two networks do not differ significantly ({counts}; McNemar p {_p_text(p)})"
    better = row.a if only_a > only_b else row.b
    return f"of its two networks, that of {better} is better ({counts}; McNemar p {_p_text(p)})"


def _p_text(p: float) -> str:
    return f"{'= ' if p >= 0.001 else ''}{_p_number(p)}"


def _notes(group: pd.DataFrame) -> Iterator[str]:
    """Yield the verdicts, then a line for each mark."""
    yield from group["verdict"]
    if group["epochs"].isna().any():
        yield "The recipes also differ in epochs or batch size, as each of them sets these."
    if (group["seeds"] == 1).any():
        yield "† One seed only: no test, no interval."
    if group["mixed_code"].any():
        yield "§ Not all cells were run with the same code and recipe."
    collapses = [*_collapses(group)]
    yield from collapses
    if collapses:
        yield f"{COLLAPSES}."
    yield from _uncounted(group)
    if group["stale"].any():
        yield "¶ Some cell was run with code that has changed since then."
    yield from _stems(group)
    rows_shown: Iterator[Any] = group.itertuples()
    yield from dict.fromkeys(
        f"‡ {name}: {sign}."
        for row in rows_shown
        for name, signs in zip(_full_names(row), (row.signs_a, row.signs_b), strict=True)
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
        f"{name}: {seeds_text(seeds)} collapsed to chance while others learned."
        for row in found
        for name, seeds in zip(_full_names(row), (row.collapsed_a, row.collapsed_b), strict=True)
        if seeds
    )
    yield from dict.fromkeys(lines)


def _uncounted(group: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each coding with work that was not counted."""
    found: Iterator[Any] = group.itertuples()
    yield from dict.fromkeys(
        f"Not counted for {encoder} at T={row.num_steps}: {first_few(names)}. Its energy is higher "
        "than the counts say, so ΔµJ is unknown."
        for row in found
        for encoder, names in ((row.encoder_a, row.uncounted_a), (row.encoder_b, row.uncounted_b))
        if names
    )


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


def _columns(between: str, columns: Sequence[Column]) -> list[Column]:
    """Return the columns that name a pair, then ``columns``."""
    steps = Column("T", lambda row: str(row.num_steps), is_key=True)
    first, second = (
        Column(heading, attrgetter(side), is_number=False, is_key=True)
        for heading, side in (("coding" if between == "encoders" else "first", "a"), ("other", "b"))
    )
    if between == "encoders":
        return [first, second, steps, *columns]
    coding = Column("coding", lambda row: row.encoder_a, is_number=False, is_key=True)
    return [coding, first, second, *([] if between == "T" else [steps]), *columns]


_MAIN: Final = [
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
    Column("selected", lambda row: _points(row, row.selected_delta)),
    Column("d_z", lambda row: or_none(row.d_z, lambda known: signed(known, 1))),
    Column("resampled", lambda row: _interval(row.bootstrap_low, row.bootstrap_high)),
    Column("alone\nright", _alone),
    Column("odds\nratio", lambda row: or_none(row.odds_ratio, "{:.2f}".format)),
    Column("McNemar\np ≤ 0.05", _mcnemar),
]
