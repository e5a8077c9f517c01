"""The tables of the leaderboard that are about energy: every convention, the bill, the ANNs."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pandas as pd

from codingbench.analysis.bill import BILL_COLUMNS, PARTS, uncounted_parts
from codingbench.analysis.energy_ranks import ENERGY_COLUMNS, RANK_COLUMNS, RANKS_FLIP
from codingbench.analysis.leaderboard import accuracy_decimals
from codingbench.analysis.ranks import REFERENCE
from codingbench.energy import COMPARED, CONVENTIONS, DEFAULT_PRICING, Pricing
from codingbench.runtime.formatting import three_digits
from codingbench.views.rows import ENCODER, FIRING_RATE, RUN, energy_text, row_notes
from codingbench.views.table import NONE, Column, View, or_none

# --- every convention -----------------------------------------------------------------------------


def every_convention(table: pd.DataFrame, pricing: Pricing = DEFAULT_PRICING) -> View:
    """Show all conventions side by side.

    Args:
        table: from :func:`codingbench.analysis.energy_ranks.with_every_convention`.
        pricing: its technology is that of ``table``.
    """
    columns = [
        ENCODER,
        Column("≠", lambda row: "≠" if getattr(row, RANKS_FLIP) else "", is_number=False),
        *RUN,
        *map(_ranked_energy_column, COMPARED),
    ]
    legend = [
        *(f"{name}: {CONVENTIONS[name].summary}" for name in COMPARED),
        pricing.prices(of_memory=True),
    ]
    caption = "µJ per image by each energy convention; #1 is the cheapest of the group; n: seeds"
    return View(table, columns, _flip_notes, legend, caption)


def _ranked_energy_column(name: str) -> Column:
    energy_uj, rank = ENERGY_COLUMNS[name], RANK_COLUMNS[name]

    def text(row: Any) -> str:
        place = getattr(row, rank)  # none where a count is unknown, or work was not counted
        energy = energy_text(getattr(row, energy_uj), row.energy_is_lower_bound)
        return energy if pd.isna(place) else f"{energy} #{place}"

    return Column(name.replace("-", "-\n"), text, energy_uj)


def _flip_notes(group: pd.DataFrame) -> Iterator[str]:
    flips = int(group[RANKS_FLIP].sum())
    if flips:
        yield f"≠ The energy rank depends on the convention for {flips} of {len(group)} rows."
    yield from row_notes(group)


# --- the encoder's bill ---------------------------------------------------------------------------


def encoder_bill(table: pd.DataFrame, pricing: Pricing = DEFAULT_PRICING) -> View:
    """Show what each encoder costs and what that buys.

    Args:
        table: from :func:`codingbench.analysis.bill.with_bill`.
        pricing: that of ``table``.
    """
    columns = [
        ENCODER,
        *RUN,
        *(Column(part, partial(part_text, part=part)) for part in PARTS),
        Column("total", total_text, "energy_uj"),
        Column("encoder\n%", lambda row: or_none(100 * row.encoder_share, _one_decimal)),
        Column("encoder\nrepeated", _repeated_text),
        Column("points\nper mJ", lambda row: or_none(row.points_per_mj, three_digits)),
    ]
    legend = [
        str(pricing),
        "encoder: stem and coding; repeated: the same if layers that run once for all steps ran at "
        "each step; points per mJ: accuracy in % / total energy",
        f"compared with {REFERENCE}: mean ± sample standard deviation of the differences between "
        "runs of the same seed, in percentage points of accuracy; codingbench compare "
        f"{REFERENCE} ENCODER tests whether they are significant",
    ]
    return View(table, columns, _bill_notes, legend, _caption(pricing))


def part_text(row: Any, part: str) -> str:
    """Return the energy of a part of the bill, marked if its work was not all counted."""
    return energy_text(getattr(row, f"{part}_uj"), part in uncounted_parts(row.uncounted))


def _repeated_text(row: Any) -> str:
    is_bound = bool({"stem", "coding"} & uncounted_parts(row.uncounted))
    return energy_text(row.encoder_repeated_uj, is_bound)


def total_text(row: Any) -> str:
    """Return the energy of a row of the leaderboard, marked if it is a lower bound."""
    return energy_text(row.energy_uj, row.energy_is_lower_bound)


def _bill_notes(group: pd.DataFrame) -> Iterator[str]:
    yield from sentences(group)
    yield from row_notes(group)


_READ = ["encoder", "num_steps", "images", *BILL_COLUMNS]  # all columns would take longer


def sentences(group: pd.DataFrame) -> Iterator[str]:
    """Yield what each coding other than direct buys, or why that is unknown.

    Args:
        group: rows of one group from :func:`codingbench.analysis.bill.with_bill`.
    """
    others = group.loc[group["encoder"] != REFERENCE, _READ]
    for row in others[others["shared_seeds"].notna()].itertuples():
        yield _sentence(row)
    alone = others.loc[others["shared_seeds"].isna(), "num_steps"]
    if not alone.empty:
        steps = ", ".join(f"T={num_steps}" for num_steps in sorted(alone.unique()))
        yield f"Nothing to compare with at {steps}: there are no results of {REFERENCE}."


def _sentence(row: Any) -> str:
    coding = f"{row.encoder} at T={row.num_steps}"
    if row.shared_seeds == 0:
        return f"{coding} has no seed in common with {REFERENCE}, so they cannot be compared."
    points, cost = 100 * row.accuracy_delta, cost_text(row.energy_delta_uj, REFERENCE)
    if row.shared_seeds == 1:
        decimals = accuracy_decimals(row.images)
        return f"{coding}: {signed(points, decimals)} points {cost} (1 seed, spread unknown)"
    spread = f"± {100 * row.accuracy_delta_std:.2f}"
    return f"{coding}: {signed(points, 2)} {spread} points {cost} ({row.shared_seeds} seeds)"


def signed(points: float, decimals: int) -> str:
    """Return the number with its sign, and never -0.00."""
    return f"{round(points, decimals) + 0.0:+.{decimals}f}"


def cost_text(delta_uj: float, other: str) -> str:
    """Return the difference in energy from another coding in words; NaN is unknown."""
    if pd.isna(delta_uj):
        return f"at an energy whose difference from {other} is unknown"
    if delta_uj == 0:
        return f"for the same energy per image as {other}"
    how = "more" if delta_uj > 0 else "less"
    return f"for {three_digits(abs(delta_uj))} µJ {how} per image than {other}"


# --- the ANNs of the same shape -------------------------------------------------------------------


def against_ann(table: pd.DataFrame, pricing: Pricing = DEFAULT_PRICING) -> View:
    """Show the ANN and the quantised ANN of the same shape beside each row.

    Args:
        table: from :func:`codingbench.analysis.break_even.with_ann`.
        pricing: that of ``table``.
    """
    columns = [
        ENCODER,
        *RUN,
        FIRING_RATE,
        Column("input\n%", lambda row: or_none(100 * row.input_density, _one_decimal)),
        Column("SNN", total_text, "energy_uj"),
        *_ann_columns("ann", "ANN"),
        Column("bits", lambda row: str(row.ann_bits)),
        *_ann_columns("qann", "QANN"),
    ]
    legend = [
        str(pricing),
        "ANN: stem and backbone run once with ReLU instead of neurons, every synaptic operation a "
        "dense MAC, without the coding; no ANN was trained, so its accuracy is unknown",
        "QANN: the same with activations of ceil(log2(T+1)) bits, as arXiv 2409.08290 compares; "
        "our assumption: the energy of a multiplication is proportional to these bits (of "
        f"{pricing.technology.bits}), everything else costs the same",
        "input: share of non-zero values that the coding emits, over all steps; it is 100 for "
        "currents, and the fewer spikes are emitted, the lower is the cost of the first layer that "
        "reads them",
        "break even: the firing rate at which both cost the same, if the operations caused by "
        "spikes are proportional to it; never: the other operations of the SNN already cost as "
        "much; any: the SNN is cheaper at every rate",
    ]
    return View(table, columns, row_notes, legend, _caption(pricing))


def _ann_columns(ann: str, heading: str) -> list[Column]:
    def energy(row: Any) -> str:
        is_bound = bool({"stem", "backbone"} & uncounted_parts(row.uncounted))
        return energy_text(getattr(row, f"{ann}_uj"), is_bound)

    def break_even(row: Any) -> str:
        if row.energy_is_lower_bound:
            return NONE
        if getattr(row, f"{ann}_uj") <= row.fixed_uj:
            return "never"
        rate = getattr(row, f"{ann}_break_even_rate")
        return "any" if rate > 1 else or_none(100 * rate, _one_decimal)

    return [
        Column(heading, energy),
        Column(
            f"SNN/\n{heading}", lambda row: or_none(getattr(row, f"{ann}_ratio"), _two_decimals)
        ),
        Column("break\neven %", break_even),
    ]


def _caption(pricing: Pricing) -> str:
    return f"µJ per image by the energy convention {pricing.convention.name}; n: number of seeds"


def _one_decimal(value: float) -> str:
    return f"{value:.1f}"


def _two_decimals(value: float) -> str:
    return f"{value:.2f}"
