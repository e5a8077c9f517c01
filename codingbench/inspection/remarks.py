"""What stands out in an observation, in plain words."""

from collections.abc import Iterator
from typing import Final

from codingbench.inspection.observe import Observation

COLLAPSED: Final = 0.9
"""A code with such a share of all that it emits in one step uses that step alone."""

FEW: Final = 0.75
"""A code whose effective number of steps is at most this part of T uses few of them."""

GAINED: Final = 0.01
"""Steps that raise R^2 by less have nothing to add for a linear read-out."""

_SAME: Final = 0.999
_ROUNDING: Final = 1e-5


def emission(observation: Observation) -> str:
    """What a code emits: ``spike``, or ``non-zero value`` of a graded or real code."""
    return "spike" if observation.emits in ("binary", "signed") else "non-zero value"


def useful_steps(observation: Observation) -> int | None:
    """The first t after which R^2 comes within :data:`GAINED` of its last value."""
    curve = [r2 for r2 in observation.reconstruction.r2 if r2 is not None]
    if not curve:
        return None
    return next(t for t, r2 in enumerate(curve, 1) if r2 >= curve[-1] - GAINED)


def remarks(observation: Observation) -> list[str]:
    """The lines, the gravest first; none if nothing stands out."""
    if not observation.activity.nonzero_per_image:
        return ["silent: not one value of the code is other than 0"]
    return [*_faults(observation), *_over_time(observation)]


def _faults(observation: Observation) -> Iterator[str]:
    dependence, silent = observation.batch_dependence, observation.activity.silent_images
    if dependence is not None and dependence > _ROUNDING:
        yield (
            "the code of an image depends on the batch it is in, "
            f"by up to {dependence:.3g} in one value"
        )
    if silent:
        images = "1 image has" if silent == 1 else f"{silent:,} images have"
        yield f"{images} not one {emission(observation)}"
    if observation.cost.uncounted:
        names = ", ".join(observation.cost.uncounted)
        yield f"not counted, so the energy is too low: {names}"


def _over_time(observation: Observation) -> Iterator[str]:
    num_steps, patterns = observation.shape[0], observation.patterns
    if num_steps == 1:
        return
    yield from _crowding(observation)
    likeness = observation.similarity.mean_off_diagonal
    if likeness is not None and likeness > _SAME:
        yield "every step emits the same code: the later ones say nothing new"
    is_sparse = observation.emits != "real"  # currents are nowhere 0, and have one pattern
    if is_sparse and patterns.used <= num_steps + 1 < patterns.possible:
        count = "1 pattern" if patterns.used == 1 else f"{patterns.used} patterns"
        apart = ", amplitudes apart" if observation.emits == "graded" else ""
        yield f"{count} over time of {patterns.possible:,} possible{apart}: no more than T + 1"


def _crowding(observation: Observation) -> Iterator[str]:
    """Whether few steps have most of what is emitted."""
    activity, num_steps = observation.activity, observation.shape[0]
    shares = [n / activity.nonzero_per_image for n in activity.nonzero_by_step]
    first, second, *_ = sorted(range(num_steps), key=lambda t: -shares[t])
    used = activity.effective_steps
    most = f"{100 * shares[first]:.0f} % of all {emission(observation)}s fall in step {first + 1}"
    if shares[first] >= COLLAPSED:
        yield f"{most} of {num_steps}"
    elif used is not None and used <= FEW * num_steps:
        yield (
            f"few steps are used, {used:.1f} of {num_steps} (effective number): {most}, "
            f"{100 * shares[second]:.0f} % in step {second + 1}"
        )
    if (idle := shares.count(0.0)) > 0:
        steps = "1 step emits" if idle == 1 else f"{idle} steps emit"
        yield f"{steps} nothing at all"
