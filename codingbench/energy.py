"""Raw operation counts -> energy per image, by a named convention, when the counts are read.

One network's "energy" spans two orders of magnitude between the formulas in use, so a figure is
worth nothing without the name of its convention. Tables hold counts; convention and technology can
be chosen anew without running anything again.

A convention of one's own is a :class:`Convention` in any file, asked for as ``file.py:name``; so is
a :class:`Technology`. One for everybody is one more entry of ``_CONVENTIONS``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from codingbench.errors import SpecError, unknown
from codingbench.plugins.code import module_of

T = TypeVar("T")


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
    bits: int
    """Width of a weight, an activation and a membrane."""
    source: str
    byte_pj: float = 24.96
    """One byte read or written, as SpikingJelly's ``SimpleEnergy`` has it."""

    @property
    def value_pj(self) -> float:
        """One weight or membrane read or written."""
        return self.byte_pj * self.bits / 8


_HOROWITZ = "Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014"
_SPIKINGJELLY = f"SpikingJelly 2.0.0, SimpleEnergyCostConfig; after {_HOROWITZ}"
_TECHNOLOGIES = (
    Technology("45nm-fp32", mac_pj=4.6, ac_pj=0.9, bits=32, source=_HOROWITZ),
    Technology("45nm-fp16", mac_pj=1.5, ac_pj=0.4, bits=16, source=_SPIKINGJELLY),
    Technology("45nm-int8", mac_pj=0.23, ac_pj=0.03, bits=8, source=_SPIKINGJELLY),
)
TECHNOLOGIES: Final = {technology.name: technology for technology in _TECHNOLOGIES}
"""Every technology by its name."""

DEFAULT_TECHNOLOGY: Final = "45nm-fp32"


@dataclass(frozen=True)
class Convention:
    """A way to turn counts into energy: ``picojoules(counts, technology)`` of all their images.

    It must be linear in the counts, whose names are ``codingbench.schema.COUNTS``.
    """

    name: str
    summary: str
    source: str
    picojoules: Callable[[Counts, Technology], Any]


def _exact(counts: Counts, chip: Technology) -> Any:
    accumulates = counts["effective_binary"] + counts["effective_signed"]
    multiplies = counts["effective_level"] + counts["effective_real"]
    return chip.ac_pj * accumulates + chip.mac_pj * multiplies


def _dense_mac(counts: Counts, chip: Technology) -> Any:
    accumulates = counts["effective_binary"] + counts["effective_signed"]
    multiplies = counts["effective_level"] + counts["dense_real"]
    return chip.ac_pj * accumulates + chip.mac_pj * multiplies


def _paper(counts: Counts, chip: Technology) -> Any:
    return chip.mac_pj * counts["paper_first_macs"] + chip.ac_pj * counts["paper_acs"]


def _neurobench(counts: Counts, chip: Technology) -> Any:
    skipped = chip.ac_pj * counts["zero_weight_acs"] + chip.mac_pj * counts["zero_weight_macs"]
    return _exact(counts, chip) - skipped


def _syops(counts: Counts, chip: Technology) -> Any:
    accumulates = counts["syops_acs"] + counts["neuron_updates"]
    return chip.ac_pj * accumulates + chip.mac_pj * counts["syops_macs"]


def _memory(counts: Counts, chip: Technology) -> Any:
    dense = counts["dense_signed"] + counts["dense_level"] + counts["dense_real"]
    additions = counts["pool_ops"] + counts["residual_adds"] + counts["neuron_updates"]
    accumulates = counts["effective_binary"] + counts["norm_macs"] + additions
    values = counts["effective_binary"] + dense + counts["bias_adds"] + 2 * counts["neuron_updates"]
    compute = chip.mac_pj * (dense + counts["norm_macs"]) + chip.ac_pj * accumulates
    return compute + chip.value_pj * values


_CONVENTIONS = (
    Convention(
        "exact",
        "operations as executed, zero inputs skipped: an accumulate where the input is a spike, "
        "a multiply-accumulate where it is not",
        "codingbench; the operations are those NeuroBench counts",
        _exact,
    ),
    Convention(
        "dense-mac",
        "as exact, but zeros are not skipped where the input is real",
        "codingbench; hardware that cannot skip zeros in analog layers",
        _dense_mac,
    ),
    Convention(
        "paper",
        "first layer once as multiply-accumulates, then firing rate x operations of each "
        "later layer as accumulates; gates and analog shortcuts are not counted",
        "the estimate of the Spikformer, SDT, MS-ResNet and GAC papers",
        _paper,
    ),
    Convention(
        "neurobench",
        "as exact, but synapses whose weight is 0 are skipped too",
        "NeuroBench 2.3.0, SynapticOperations",
        _neurobench,
    ),
    Convention(
        "syops",
        "dense operations with padding and bias x firing rate where the input is binary, "
        "multiply-accumulates elsewhere; normalisation, pooling and one accumulate per neuron "
        "and step",
        "syops 0.0.5, its neurons' rule applied to every spiking neuron",
        _syops,
    ),
    Convention(
        "memory",
        "accumulates where the input is binary, dense multiply-accumulates elsewhere, "
        "normalisation, pooling, residuals, an accumulate per neuron and step; and the reading of "
        "each weight and bias used, reading and writing of each membrane",
        "SpikingJelly 2.0.0, SimpleEnergy; gates cost nothing there",
        _memory,
    ),
)

CONVENTIONS: Final = {convention.name: convention for convention in _CONVENTIONS}
"""Every convention by its name."""


def get_convention(name: str) -> Convention:
    """The convention of this name, or ``file.py:variable``.

    Raises:
        SpecError: there is none.
    """
    return _named("energy convention", name, CONVENTIONS, Convention)


def get_technology(name: str) -> Technology:
    """The technology of this name, with or without its ``45nm-``, or ``file.py:variable``.

    Raises:
        SpecError: there is none.
    """
    short = {known.partition("-")[2]: chip for known, chip in TECHNOLOGIES.items()}
    return _named("technology", name, TECHNOLOGIES | short, Technology)


def _named(kind: str, name: str, known: Mapping[str, T], cls: type[T]) -> T:
    path, colon, variable = name.rpartition(":")
    if not (colon and path.endswith(".py")):
        if name not in known:
            raise SpecError(unknown(kind, name, known))
        return known[name]
    if not Path(path).is_file():
        raise SpecError(f"no file {path!r} for {kind} {name}")
    there = vars(module_of(Path(path)))
    own = {key: value for key, value in there.items() if isinstance(value, cls)}
    if variable not in own:
        raise SpecError(unknown(f"{kind} in {path}:", variable, own))
    return own[variable]


def energy_uj(rows: Counts, convention: str = "exact", technology: str = DEFAULT_TECHNOLOGY) -> Any:
    """Energy of one image in microjoules: the rows' counts priced, divided by their ``images``.

    Returns:
        A number for one row, a Series for a DataFrame.

    Raises:
        SpecError: there is no such convention or technology, or it asks for a count that is none.

    >>> counts = {"effective_binary": 8000, "effective_signed": 0, "effective_level": 0}
    >>> round(energy_uj(counts | {"effective_real": 1000, "images": 2}), 6)
    0.0059
    """
    formula = get_convention(convention)
    try:
        picojoules = formula.picojoules(rows, get_technology(technology))
    except KeyError as error:
        from codingbench.schema import COUNTS  # imports pyarrow, which --help need not

        asked = str(error.args[0])
        raise SpecError(f"{formula.name}: {unknown('count', asked, COUNTS)}") from error
    return picojoules / rows["images"] * 1e-6
