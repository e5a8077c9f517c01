"""Raw operation counts -> energy per image, by a named convention, when the counts are read.

One network's "energy" spans two orders of magnitude between the formulas in use, so a figure is
worth nothing without the name of its convention. Tables hold counts; a convention can be chosen
anew without running anything again. A new one is one more entry of ``_CONVENTIONS``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from codingbench.errors import SpecError, unknown


class Counts(Protocol):
    """Counts by column name: one row (a mapping of numbers) or many (a DataFrame)."""

    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True)
class Technology:
    """What one operation costs on some chip, in picojoules."""

    name: str
    mac_pj: float
    """A multiplication and an addition."""
    ac_pj: float
    """An addition alone, all that a spike needs."""
    source: str


FP32_45NM: Final = Technology(
    "45nm-fp32",
    mac_pj=4.6,
    ac_pj=0.9,
    source="Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014",
)


@dataclass(frozen=True)
class Convention:
    """A way to turn counts into energy: ``picojoules(counts, technology)`` of all their images."""

    name: str
    summary: str
    source: str
    picojoules: Callable[[Counts, Technology], Any]


def _exact(counts: Counts, technology: Technology) -> Any:
    accumulates = counts["effective_binary"] + counts["effective_signed"]
    multiplies = counts["effective_level"] + counts["effective_real"]
    return technology.ac_pj * accumulates + technology.mac_pj * multiplies


def _paper(counts: Counts, technology: Technology) -> Any:
    return technology.mac_pj * counts["paper_first_macs"] + technology.ac_pj * counts["paper_acs"]


_CONVENTIONS = (
    Convention(
        "exact",
        "operations as executed, zero inputs skipped: an accumulate where the input is a spike, "
        "a multiply-accumulate where it is not",
        "codingbench; the operations are those NeuroBench counts",
        _exact,
    ),
    Convention(
        "paper",
        "first convolution once as multiply-accumulates, then firing rate x operations of each "
        "later layer as accumulates; gates and analog shortcuts are not counted",
        "the estimate of the Spikformer, SDT, MS-ResNet and GAC papers",
        _paper,
    ),
)

CONVENTIONS: Final = {convention.name: convention for convention in _CONVENTIONS}
"""Every convention by its name."""


def get_convention(name: str) -> Convention:
    """The convention of this name.

    Raises:
        SpecError: there is none.
    """
    try:
        return CONVENTIONS[name]
    except KeyError:
        raise SpecError(unknown("energy convention", name, CONVENTIONS)) from None


def energy_uj(rows: Counts, convention: str = "exact", technology: Technology = FP32_45NM) -> Any:
    """Energy of one image in microjoules: the rows' counts priced, divided by their ``images``.

    Returns:
        A number for one row, a Series for a DataFrame.

    Raises:
        SpecError: there is no such convention.

    >>> counts = {"effective_binary": 8000, "effective_signed": 0, "effective_level": 0}
    >>> round(energy_uj(counts | {"effective_real": 1000, "images": 2}), 6)
    0.0059
    """
    picojoules = get_convention(convention).picojoules(rows, technology)
    return picojoules / rows["images"] * 1e-6
