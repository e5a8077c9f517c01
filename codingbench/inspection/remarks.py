"""Remarks about an observation, as sentences."""

from collections.abc import Iterator
from typing import Final

from codingbench.inspection.observe import Observation

COLLAPSED: Final = 0.9
"""A code that emits at least this share in one step is said to use that step alone."""

FEW: Final = 0.75
"""A code whose effective number of steps is at most this share of T uses few steps."""

GAINED: Final = 0.01
"""Steps that raise R^2 by less add nothing for a linear read-out."""

_SAME: Final = 0.999
_ROUNDING: Final = 1e-5


def emission(observation: Observation) -> str:
    """Return the noun for what a code emits: ``spike``, or ``non-zero value``."""
    return "spike" if observation.emits in ("binary", "signed") else "non-zero value"


def useful_steps(observation: Observation) -> int | None:
    """Return the first t at which R^2 is within :data:`GAINED` of its last value."""
    curve = [r2 for r2 in observation.reconstruction.r2 if r2 is not None]
    if not curve:
        return None
    return next(t for t, r2 in enumerate(curve, 1) if r2 >= curve[-1] - GAINED)


def remarks(observation: Observation) -> list[str]:
    """Return the remarks, the most serious first; the list may be empty."""
    if not observation.activity.nonzero_per_image:
        return ["the code is silent: all of its values are 0"]
    return [*_faults(observation), *_over_time(observation), *_stem(observation)]


def _faults(observation: Observation) -> Iterator[str]:
    dependence, silent = observation.batch_dependence, observation.activity.silent_images
    if dependence is not None and dependence > _ROUNDING:
        yield (
            "the code of an image depends on the other images of its batch: "
            f"single values differ by up to {dependence:.3g}"
        )
    if silent:
        images = "1 image has" if silent == 1 else f"{silent:,} images have"
        yield f"{images} no {emission(observation)} at all"
    if observation.cost.uncounted:
        names = ", ".join(observation.cost.uncounted)
        yield f"the energy is too low, because some operations are not counted: {names}"


def _over_time(observation: Observation) -> Iterator[str]:
    num_steps, patterns = observation.shape[0], observation.patterns
    if num_steps == 1:
        return
    yield from _crowding(observation)
    mean_cosine = observation.similarity.mean_off_diagonal
    if mean_cosine is not None and mean_cosine > _SAME:
        yield "all steps emit the same code, so later steps add nothing"
    is_sparse = observation.emits != "real"  # currents are never 0 and have a single pattern
    if is_sparse and patterns.used <= num_steps + 1 < patterns.possible:
        count = "1 pattern" if patterns.used == 1 else f"{patterns.used} patterns"
        apart = ", amplitudes apart" if observation.emits == "graded" else ""
        yield f"{count} over time of {patterns.possible:,} possible{apart}: no more than T + 1"


def _stem(observation: Observation) -> Iterator[str]:
    if (channels := observation.code_channels) > 1:
        yield (
            f"the code has {channels} channels for each channel of the image, so its stem has "
            f"{channels} times as many inputs as that of other codings"
        )


def _crowding(observation: Observation) -> Iterator[str]:
    """Yield remarks on few steps that emit most of the code, and on steps that emit nothing."""
    activity, num_steps = observation.activity, observation.shape[0]
    shares = [n / activity.nonzero_per_image for n in activity.nonzero_by_step]
    first, second, *_ = sorted(range(num_steps), key=lambda t: -shares[t])
    used = activity.effective_steps
    if shares[0] == 1:
        yield f"a still image is sent once, at step 1; the other steps of {num_steps} emit nothing"
        return
    most = f"{100 * shares[first]:.0f} % of all {emission(observation)}s fall in step {first + 1}"
    if shares[first] >= COLLAPSED:
        yield f"{most} of {num_steps}"
    elif used is not None and used <= FEW * num_steps:
        yield (
            f"the code uses few steps, effectively {used:.1f} of {num_steps}: {most}, "
            f"{100 * shares[second]:.0f} % in step {second + 1}"
        )
    if (idle := shares.count(0.0)) > 0:
        steps = "1 step emits" if idle == 1 else f"{idle} steps emit"
        yield f"{steps} nothing"
