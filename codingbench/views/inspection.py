"""``codingbench inspect``: what codings do before any training, for a terminal of 80 columns."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from codingbench.inspection.coding import Conditions
from codingbench.inspection.observe import Observation
from codingbench.inspection.remarks import GAINED, emission, remarks, useful_steps
from codingbench.inspection.session import Inspection
from codingbench.runtime.formatting import three_digits
from codingbench.views.glyphs import beads, heat, spark
from codingbench.views.table import NONE, Column, properties, rich_table
from codingbench.views.writers import written_document

_PATTERNS: Final = 8
_NUMBERS: Final = 8  # most steps whose numbers are written out
_MATRIX: Final = 16  # most steps whose similarities are shown
_LEVEL: Final = 0.8
_WIDTH: Final = 64  # of the column beside the headings, in 80 columns

Line = tuple[str, str]


def present(found: Inspection, form: str = "table", is_long: bool = False) -> str | RenderableType:
    """Return what codings do with the same images, as JSON text or to be printed.

    Args:
        found: what was observed.
        form: ``table`` or ``json``.
        is_long: show each of several codings in full.

    Raises:
        SpecError: there is no such format.
    """
    return written_document(
        found.described(), lambda: render(found.conditions, found.observations, is_long), form
    )


def render(
    conditions: Conditions, observations: Sequence[Observation], is_long: bool = False
) -> Group:
    """Render several codings side by side, and each one in full if it is alone or ``is_long``."""
    parts: list[RenderableType] = [Text(_heading(conditions), style="bold"), Text()]
    if len(observations) > 1:
        parts += [rich_table(observations, _COLUMNS), Text()]
        if not is_long:
            return Group(*parts, *_all_remarks(observations), Text("--long: each coding in full"))
    for observation in observations:
        parts += [*_one(conditions, observation), Text()]
    return Group(*parts)


def _heading(conditions: Conditions) -> str:
    return (
        f"{conditions.dataset} · T = {conditions.num_steps} · {conditions.images:,} training images"
        f" · {conditions.backbone} · seed {conditions.seed}"
    )


# --- several ------------------------------------------------------------------------------------


def _by_step(seen: Observation) -> str:
    is_short = len(seen.reconstruction.r2) <= _NUMBERS
    return spark(seen.activity.nonzero_by_step) if is_short else NONE


_COLUMNS: Final = [
    Column("coding", lambda seen: seen.encoder, is_number=False),
    Column("not 0\nper\nimage", lambda seen: f"{seen.activity.nonzero_per_image:,.0f}"),
    Column("by\nstep", _by_step),
    Column("steps\nused", lambda seen: _number(seen.activity.effective_steps)),
    Column("pat-\nterns", lambda seen: f"{seen.patterns.used:,}"),
    Column("bits", lambda seen: _number(seen.patterns.entropy_bits)),
    Column("simi-\nlarity", lambda seen: _number(seen.similarity.mean_off_diagonal)),
    Column("R²\nt = 1", lambda seen: _number(seen.reconstruction.r2[0])),
    Column("R²\nt = T", lambda seen: _number(seen.reconstruction.r2[-1])),
    Column("µJ per\nimage", lambda seen: three_digits(seen.cost.stem_uj + seen.cost.coding_uj)),
]
"""The columns of several codings side by side."""


# --- one ----------------------------------------------------------------------------------------


def _one(conditions: Conditions, observation: Observation) -> Iterator[RenderableType]:
    yield Text(observation.encoder, style="bold")
    yield Text(_nature(observation), style="dim")
    yield from map(_remark, remarks(observation))
    yield properties(line for section in _SECTIONS for line in section(conditions, observation))


def _all_remarks(observations: Sequence[Observation]) -> Iterator[RenderableType]:
    found = [(seen.encoder, remark) for seen in observations for remark in remarks(seen)]
    yield from (_remark(f"{encoder}: {remark}") for encoder, remark in found)
    if found:
        yield Text()


def _remark(text: str) -> Table:
    line = Table.grid(padding=(0, 1))
    line.add_row(Text("!"), Text(text), style="yellow")
    return line


def _nature(observation: Observation) -> str:
    steps, channels, rows, columns = observation.shape
    drawn = "deterministic" if observation.is_deterministic else "random"
    stem = (
        ""
        if observation.calibrated_on is None
        else f"; stem untrained, batch norm calibrated on {observation.calibrated_on:,} images"
    )
    return f"{observation.emits}, {drawn}; {steps} x {channels} x {rows} x {columns} values{stem}"


def _activity(conditions: Conditions, observation: Observation) -> Iterator[Line]:
    activity, by_step = observation.activity, observation.activity.nonzero_by_step
    share = f"{_percent(activity.rate)} of {math.prod(observation.shape):,} values"
    yield f"{emission(observation)}s", f"{_count(activity.nonzero_per_image)} per image, {share}"
    yield "by step", f"{spark(by_step)}  {_list(by_step, _count)}"
    yield from _strip("top to bottom", activity.rate_by_row)
    yield from _strip("left to right", activity.rate_by_column)
    silent = f"{activity.silent_images:,} of {conditions.images:,} images"
    yield "silent", f"{_percent(activity.silent_positions)} of positions; {silent}"


def _strip(name: str, rates: Sequence[float]) -> Iterator[Line]:
    """Yield the rate across the image, unless it is nearly the same everywhere."""
    if min(rates) < _LEVEL * max(rates):
        yield name, f"{heat(rates)}|  {_percent(min(rates))} to {_percent(max(rates))}"


def _steps(conditions: Conditions, observation: Observation) -> Iterator[Line]:
    activity = observation.activity
    if activity.busiest_share is None:
        return
    yield (
        "steps used",
        f"{_number(activity.effective_steps)} of {conditions.num_steps} (effective number); "
        f"{_percent(activity.busiest_share)} in step {activity.busiest_step}",
    )


def _patterns(conditions: Conditions, observation: Observation) -> Iterator[Line]:
    patterns = observation.patterns
    yield (
        "patterns",
        f"{patterns.used:,} of {patterns.possible:,}; "
        f"entropy {patterns.entropy_bits:.2f} of at most {conditions.num_steps} bits",
    )
    entries = [
        f"{beads(pattern)} {100 * share:4.1f} %"
        for pattern, share in list(patterns.most_frequent.items())[:_PATTERNS]
    ]
    beside = max(1, _WIDTH // (len(entries[0]) + 3))
    for first in range(0, len(entries), beside):
        yield "", "   ".join(entries[first : first + beside])


def _amplitudes(conditions: Conditions, observation: Observation) -> Iterator[Line]:
    values = observation.amplitudes
    if values is None:
        return
    if observation.emits == "signed":
        yield "signs", f"{_percent((1 + values.mean) / 2)} of the spikes are positive"
        return
    yield (
        "amplitudes",
        f"{values.mean:.4g} ± {values.std:.2g}, from {values.lowest:.4g} to {values.highest:.4g}; "
        f"of one position over its steps ± {values.std_over_steps:.2g}",
    )


def _similarity(conditions: Conditions, observation: Observation) -> Iterator[Line]:
    similarity = observation.similarity
    if conditions.num_steps == 1:
        return
    yield (
        "similarity",
        f"{_number(similarity.mean_off_diagonal)} between steps (mean cosine of code[t], code[t'])",
    )
    if conditions.num_steps > _MATRIX:
        return
    for t, row in enumerate(similarity.cosine, 1):
        strip = "".join(2 * heat([value], 1.0) for value in row)
        numbers = "  ".join(_number(value) for value in row) if len(row) <= _NUMBERS else ""
        yield f"t = {t:<2}".rjust(12), f"{strip}|  {numbers}"


def _reconstruction(conditions: Conditions, observation: Observation) -> Iterator[Line]:
    r2, window = observation.reconstruction.r2, observation.reconstruction.window
    enough = useful_steps(observation)
    if enough is None:
        yield "R² of images", "none: too large a code, positions that do not divide the image,"
        yield "", "or images that do not differ"
        return
    yield "R² of images", f"{spark(r2, 1.0)}  {_list(r2, _number)} after t steps"
    yield (
        "",
        f"within {GAINED} of the last after {enough} of "
        f"{conditions.num_steps}; linear, {window}x{window} positions, fitted on "
        f"{conditions.fitted:,}, scored on {conditions.images - conditions.fitted:,} images",
    )


def _batch(conditions: Conditions, observation: Observation) -> Iterator[Line]:
    dependence = observation.batch_dependence
    text = "not compared: the code is random"
    if dependence is not None:
        text = f"{dependence:.3g}, largest difference of an image's code alone and in a batch"
    yield "batch", text


def _cost(conditions: Conditions, observation: Observation) -> Iterator[Line]:
    cost = observation.cost
    yield (
        "cost",
        f"stem {three_digits(cost.stem_uj)} + coding {three_digits(cost.coding_uj)} µJ per image "
        f"({cost.convention}, {cost.technology}); "
        f"{cost.stem_parameters:,} + {cost.coding_parameters:,} parameters",
    )


_SECTIONS: Final = (
    _activity,
    _steps,
    _patterns,
    _amplitudes,
    _similarity,
    _reconstruction,
    _batch,
    _cost,
)


# --- numbers ------------------------------------------------------------------------------------


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _list(values: Sequence[float | None], text: Callable[[float], str]) -> str:
    """Return the numbers, or the first ones and the last if there are many."""
    texts = [NONE if value is None else text(value) for value in values]
    if len(texts) > _NUMBERS:
        return f"{'  '.join(texts[:4])}  …  {texts[-1]}"
    return "  ".join(texts)
