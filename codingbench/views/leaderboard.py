"""The views of the leaderboard: which columns a reader sees, and what is said below them.

Each view is made from the rows of :mod:`codingbench.analysis.leaderboard`, with further columns of
:mod:`~codingbench.analysis.energy_ranks`, :mod:`~codingbench.analysis.bill` or
:mod:`~codingbench.analysis.break_even`.
:mod:`codingbench.views.writers` writes any view in any format.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pandas as pd

from codingbench.analysis.bill import REFERENCE, sentences
from codingbench.analysis.energy_ranks import ENERGY_COLUMNS, RANK_COLUMNS, RANKS_FLIP
from codingbench.analysis.leaderboard import accuracy_decimals
from codingbench.analysis.ranks import MOST_CELLS, MOST_PREDICTIONS, SEEDS
from codingbench.energy import CONVENTIONS, DEFAULT_PRICING, Pricing
from codingbench.runtime.formatting import counted, three_digits

_NONE: Final = "—"


@dataclass(frozen=True)
class Column:
    """One column to be read."""

    heading: str
    text: Callable[[Any], str]
    """Of one row, a named tuple with the columns of the view's frame as fields."""
    ranked: str = ""
    """The field whose best value is emphasised."""
    is_number: bool = True
    folds: bool = False
    """A number that a narrow table may fold where it has a space; names always may."""


Group = tuple[str, str, pd.DataFrame]
"""A heading, the further conditions, and the rows, in the order of the view."""


@dataclass(frozen=True)
class Origin:
    """What a view was made from: how to run it again, and what to cite."""

    cells: pd.DataFrame
    """Of table ``cells``, those that its rows average."""
    pricings: Sequence[Pricing]
    """Of its energies."""


@dataclass(frozen=True)
class View:
    """What one kind of leaderboard shows."""

    frame: pd.DataFrame
    """All its values; the keys of the JSON and CSV output."""
    columns: list[Column]
    notes: Callable[[pd.DataFrame], Iterator[str]]
    """Of the rows of one group, what stands below their table."""
    legend: list[str]
    """What stands below all tables: what the energies are."""
    caption: str = ""
    """What stands above each table: what its columns have in common."""
    further: Sequence[Sequence[Column]] = ()
    """Columns of further tables of the same rows, below the first."""
    groups: Callable[[pd.DataFrame], Iterator[Group]] | None = None
    """How the rows are divided into tables; None: by the conditions of the runs."""
    origin: Origin | None = None
    """None: nothing is said of it."""


def ranking(table: pd.DataFrame, pricing: Pricing = DEFAULT_PRICING) -> View:
    """The plain leaderboard, ``table`` from :func:`codingbench.analysis.leaderboard.rows`."""
    name = pricing.convention.name
    columns = [
        Column("rank", lambda row: or_none(row.rank, str)),
        _ENCODER,
        _STEPS,
        Column("n", _seeds_text),
        _ACCURACY,
        Column("95 % CI", lambda row: interval_text(row.accuracy_low, row.accuracy_high)),
        Column("selected\n%", lambda row: _percent_text(row, row.selected_accuracy)),
        _FIRING_RATE,
        Column(f"µJ/image\n({name})", lambda row: three_digits(row.energy_uj), "energy_uj"),
        Column("parameters", lambda row: f"{row.parameters:,}", "parameters"),
    ]
    legend = [
        "n seeds; accuracy: mean ± sample standard deviation; 95 % CI: of the mean over seeds; "
        "selected: of the epochs that the validation images choose",
        str(pricing),
    ]
    return View(table, columns, _ranking_notes, legend)


def every_convention(table: pd.DataFrame, pricing: Pricing = DEFAULT_PRICING) -> View:
    """All conventions side by side, ``table`` from ``energy_ranks.with_every_convention``."""
    columns = [
        _ENCODER,
        Column("≠", lambda row: "≠" if getattr(row, RANKS_FLIP) else "", is_number=False),
        *_RUN,
        *map(_ranked_energy_column, CONVENTIONS),
    ]
    legend = [
        *(f"{name}: {convention.summary}" for name, convention in CONVENTIONS.items()),
        pricing.prices(of_memory=True),
    ]
    caption = "µJ per image by each energy convention, #1 the cheapest of the group; n seeds"
    return View(table, columns, _rank_notes, legend, caption)


def encoder_bill(table: pd.DataFrame, pricing: Pricing = DEFAULT_PRICING) -> View:
    """What the encoder costs and buys, ``table`` from ``bill.with_bill``."""
    columns = [
        _ENCODER,
        *_RUN,
        Column("stem", lambda row: three_digits(row.stem_uj)),
        Column("coding", lambda row: three_digits(row.coding_uj)),
        Column("backbone", lambda row: three_digits(row.backbone_uj)),
        Column("total", lambda row: three_digits(row.energy_uj), "energy_uj"),
        Column("encoder\n%", lambda row: or_none(100 * row.encoder_share, _one_decimal)),
        Column("encoder\nrepeated", lambda row: three_digits(row.encoder_repeated_uj)),
        Column("points\nper mJ", lambda row: or_none(row.points_per_mj, three_digits)),
    ]
    legend = [
        str(pricing),
        "encoder: stem and coding; repeated: if what runs once for all steps ran at each of them; "
        "points per mJ: accuracy % / total energy",
        f"against {REFERENCE}: mean ± sample standard deviation of the differences between runs "
        f"of the same seed; whether they are told apart: codingbench compare {REFERENCE} ENCODER",
    ]
    return View(table, columns, _bill_notes, legend, _caption(pricing))


def against_ann(table: pd.DataFrame, pricing: Pricing = DEFAULT_PRICING) -> View:
    """Both ANNs beside each row, ``table`` from ``break_even.with_ann``."""
    columns = [
        _ENCODER,
        *_RUN,
        _FIRING_RATE,
        Column("SNN", lambda row: three_digits(row.energy_uj), "energy_uj"),
        *_ann_columns("ann", "ANN"),
        Column("bits", lambda row: str(row.ann_bits)),
        *_ann_columns("qann", "QANN"),
    ]
    bits = pricing.technology.bits
    legend = [
        str(pricing),
        "ANN: stem and backbone run once with ReLU for neurons, every synaptic operation a dense "
        "MAC, the coding left out; no ANN was trained, so its accuracy is not known",
        "QANN: the same with activations of ceil(log2(T+1)) bits, as arXiv 2409.08290 compares; "
        "our assumption: the energy of a multiplication is proportional to these bits (of "
        f"{bits}), all else costs the same",
        "break even: the firing rate at which both cost the same "
        "if the operations that spikes cause are proportional to it; never: the rest of the SNN "
        "alone costs as much; any: at every rate the SNN is cheaper",
    ]
    return View(table, columns, _row_notes, legend, _caption(pricing))


def _caption(pricing: Pricing) -> str:
    return f"µJ per image by the energy convention {pricing.convention.name}; n seeds"


def _ranked_energy_column(name: str) -> Column:
    energy_uj, rank = ENERGY_COLUMNS[name], RANK_COLUMNS[name]

    def text(row: Any) -> str:
        place = getattr(row, rank)  # none where a count is not known
        return _NONE if pd.isna(place) else f"{three_digits(getattr(row, energy_uj))} #{place}"

    return Column(name, text, energy_uj)


def _ann_columns(ann: str, heading: str) -> list[Column]:
    def break_even(row: Any) -> str:
        if getattr(row, f"{ann}_uj") <= row.fixed_uj:
            return "never"
        rate = getattr(row, f"{ann}_break_even_rate")
        return "any" if rate > 1 else or_none(100 * rate, _one_decimal)

    return [
        Column(heading, lambda row: three_digits(getattr(row, f"{ann}_uj"))),
        Column(
            f"SNN/\n{heading}", lambda row: or_none(getattr(row, f"{ann}_ratio"), _two_decimals)
        ),
        Column("break\neven %", break_even),
    ]


def or_none(value: Any, form: Callable[[Any], str]) -> str:
    """The value as text, or a dash if there is none."""
    return _NONE if pd.isna(value) else form(value)


def _one_decimal(value: float) -> str:
    return f"{value:.1f}"


def _two_decimals(value: float) -> str:
    return f"{value:.2f}"


def _seeds_text(row: Any) -> str:
    mark = "†" if row.seeds == 1 else "§" if row.mixed_code else ""
    return f"{row.seeds}{mark}"


def _accuracy_text(row: Any) -> str:
    """In percent; one run gets no more decimals than one test image more or less can move."""
    mark = "" if row.above_chance else "‡"
    spread = f"{100 * row.accuracy_std:.2f}" if row.seeds > 1 else _NONE
    return f"{_percent_text(row, row.accuracy)} ± {spread}{mark}"


def _percent_text(row: Any, accuracy: float) -> str:
    return f"{100 * accuracy:.{2 if row.seeds > 1 else accuracy_decimals(row.images)}f}"


def interval_text(low: float, high: float) -> str:
    """Both ends in percent; a dash where there is no interval.

    >>> interval_text(0.7955, 0.8625)
    '79.5-86.2'
    """
    return _NONE if pd.isna(low) else f"{100 * low:.1f}-{100 * high:.1f}"


_ENCODER: Final = Column("encoder", lambda row: row.encoder, is_number=False)
_STEPS: Final = Column("T", lambda row: str(row.num_steps))
_ACCURACY: Final = Column("accuracy %", _accuracy_text, "accuracy")
_RUN: Final = [_STEPS, Column("n", _seeds_text), replace(_ACCURACY, folds=True)]
"""The conditions and the accuracy, narrow enough for many columns beside them."""
_FIRING_RATE: Final = Column(
    "firing\nrate %", lambda row: f"{100 * row.firing_rate:.2f}", "firing_rate"
)


def _ranking_notes(group: pd.DataFrame) -> Iterator[str]:
    """How the ranks came about, then what :func:`_row_notes` says."""
    first: Any = next(group.itertuples())
    if first.comparisons:
        why = f"predictions missing, or over {MOST_CELLS:,} cells or {MOST_PREDICTIONS:,} of them"
        alone = f" alone ({why})" if first.rank_basis == SEEDS else ""
        yield (
            f"rows share a rank unless told apart at 5 %, paired over {first.rank_basis}{alone}, "
            f"Holm over {counted(first.comparisons, 'pair')}"
        )
    if group["rank"].isna().any():
        yield "rows of one seed have no rank: codingbench run --seeds 3"
    yield from _row_notes(group)


def _row_notes(group: pd.DataFrame) -> Iterator[str]:
    """One line for each mark that occurs in the group, and for the cells left out."""
    if (group["seeds"] == 1).any():
        yield "† n=1: no spread"
    if not group["above_chance"].all():
        chance, images = group[["chance", "images"]].iloc[0]
        yield (
            f"‡ not above chance: within 3 standard deviations of {100 * chance:.3g} % "
            f"on {images:,.0f} test images"
        )
    if (group["mixed_code"] & (group["seeds"] > 1)).any():
        yield "§ not all seeds were run by the same code, recipe and data"
    if group["stale"].any():
        stale = group[group["stale"]]
        some = [f"{row.encoder} at T={row.num_steps}" for row in stale.head(3).itertuples()]
        more = [f"{len(stale) - 3} more"] if len(stale) > 3 else []
        yield f"run by code that has changed since: {', '.join(some + more)}"
    older = int(group["superseded"].sum())
    if older:
        yield f"{counted(older, 'older cell')} of the same coordinates left out (the code changed)"


def _rank_notes(group: pd.DataFrame) -> Iterator[str]:
    flips = int(group[RANKS_FLIP].sum())
    if flips:
        yield (
            f"≠ {flips} of {len(group)} rows: the energy rank is not the same under all conventions"
        )
    yield from _row_notes(group)


def _bill_notes(group: pd.DataFrame) -> Iterator[str]:
    yield from sentences(group)
    yield from _row_notes(group)
