"""Convert raw operation counts into energy per image.

The "energy" of one network spans two orders of magnitude between the formulas in use, so a number
means little without the name of its formula. The stored tables hold counts. A :class:`Convention`
(the formula) and a :class:`Technology` (the price of one operation) turn them into energy whenever
they are read, so both can be changed without running anything again. A :class:`Pricing` is the two
together.

Both can also be defined in any Python file and named as ``file.py:variable``. To ship another
convention, add an entry to ``_CONVENTIONS``.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeVar

from codingbench.errors import SpecError, unknown
from codingbench.plugins.code import module_of

T = TypeVar("T")


class Counts(Protocol):
    """Counts by column name: one row (a mapping of numbers) or many rows (a DataFrame)."""

    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True)
class Technology:
    """The prices of single operations on one kind of chip, in picojoules."""

    name: str
    mac_pj: float
    """One multiply-accumulate operation (MAC)."""
    ac_pj: float
    """One accumulate operation (AC), which is all that a spike needs."""
    bits: int
    """Width of a weight, an activation and a membrane potential."""
    source: str
    byte_pj: float = 24.96
    """One byte read or written; the default is that of SpikingJelly's ``SimpleEnergy``."""

    @property
    def value_pj(self) -> float:
        """The price of reading or writing one weight or membrane potential."""
        return self.byte_pj * self.bits / 8


_HOROWITZ = "Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014"
_SPIKINGJELLY = f"SpikingJelly 2.0.0, SimpleEnergyCostConfig; after {_HOROWITZ}"
_TECHNOLOGIES = (
    Technology("45nm-fp32", mac_pj=4.6, ac_pj=0.9, bits=32, source=_HOROWITZ),
    Technology("45nm-fp16", mac_pj=1.5, ac_pj=0.4, bits=16, source=_SPIKINGJELLY),
    Technology("45nm-int8", mac_pj=0.23, ac_pj=0.03, bits=8, source=_SPIKINGJELLY),
)
TECHNOLOGIES: Final = {technology.name: technology for technology in _TECHNOLOGIES}
"""The shipped technologies, by name."""

DEFAULT_TECHNOLOGY: Final = "45nm-fp32"


@dataclass(frozen=True)
class Convention:
    """A formula that turns counts into energy.

    ``picojoules(counts, technology)`` returns the energy of all counted images together. It must be
    linear in the counts, whose names are listed in ``codingbench.schema.COUNTS``.
    """

    name: str
    summary: str
    source: str
    picojoules: Callable[[Counts, Technology], Any]

    @property
    def column(self) -> str:
        """The column that holds the energy by this convention beside others."""
        return f"energy_{self.name.replace('-', '_')}_uj"


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
"""The shipped conventions, by name."""


def get_convention(name: str) -> Convention:
    """Return the convention with this name, or the one at ``file.py:variable``.

    Raises:
        SpecError: no such convention exists.
    """
    return _named("energy convention", name, CONVENTIONS, Convention)


def get_technology(name: str) -> Technology:
    """Return the technology with this name, or the one at ``file.py:variable``.

    The prefix ``45nm-`` may be left out.

    Raises:
        SpecError: no such technology exists.
    """
    short = {known.partition("-")[2]: chip for known, chip in TECHNOLOGIES.items()}
    return _named("technology", name, TECHNOLOGIES | short, Technology)


@dataclass(frozen=True)
class Pricing:
    """A convention and a technology: everything needed to turn counts into energy.

    >>> counts = {"effective_binary": 8000, "effective_signed": 0, "effective_level": 0}
    >>> round(Pricing.of("exact").energy_uj(counts | {"effective_real": 1000, "images": 2}), 6)
    0.0059
    """

    convention: Convention
    technology: Technology

    @classmethod
    def of(cls, convention: str = "exact", technology: str = DEFAULT_TECHNOLOGY) -> Self:
        """Look up both by the names that a user gives.

        Args:
            convention: as :func:`get_convention` takes it.
            technology: as :func:`get_technology` takes it.

        Raises:
            SpecError: no such convention or technology exists.
        """
        return cls(get_convention(convention), get_technology(technology))

    def energy_uj(self, rows: Counts) -> Any:
        """Return the energy of one image in microjoules.

        Args:
            rows: the counts and the number of ``images`` that they were summed over.

        Returns:
            A number for one row, a Series for a DataFrame.

        Raises:
            SpecError: the convention reads a count that does not exist.
        """
        try:
            picojoules = self.convention.picojoules(rows, self.technology)
        except KeyError as error:
            from codingbench.schema import COUNTS  # imports pyarrow, which --help must not need

            missing = unknown("count", str(error.args[0]), COUNTS)
            raise SpecError(f"{self.convention.name}: {missing}") from error
        return picojoules / rows["images"] * 1e-6

    def __str__(self) -> str:
        """Describe the formula and its prices in one line."""
        prices = self.prices(of_memory=self.convention.name == "memory")
        return f"energy ({self.convention.name}): {self.convention.summary}; {prices}"

    def prices(self, of_memory: bool) -> str:
        """Describe the prices; that of a byte only if a formula that reads it is shown."""
        chip = self.technology
        memory = f", {chip.byte_pj} pJ per byte" if of_memory else ""
        return f"{chip.name}, {chip.mac_pj} pJ per MAC, {chip.ac_pj} pJ per AC{memory}"


DEFAULT_PRICING: Final = Pricing(CONVENTIONS["exact"], TECHNOLOGIES[DEFAULT_TECHNOLOGY])
"""Operations as executed, in 32-bit floating point on a 45 nm chip."""

COMPUTE_AND_MEMORY: Final = ("exact", "memory")
"""The default conventions of the leaderboard: without and with the traffic of memory."""

EXACT_AND_PAPER: Final = tuple(
    Pricing(CONVENTIONS[name], DEFAULT_PRICING.technology) for name in ("exact", "paper")
)
"""The default pricings of ``codingbench show`` and of model cards."""


def pricings(
    conventions: Iterable[str], technology: str | Technology = DEFAULT_TECHNOLOGY
) -> tuple[Pricing, ...]:
    """Return one pricing for each convention; ``all`` stands for the shipped ones.

    A convention that is given twice is returned once.

    Raises:
        SpecError: no such convention or technology exists, or two conventions have one name.
    """
    chip = technology if isinstance(technology, Technology) else get_technology(technology)
    names = [spec for name in conventions for spec in (CONVENTIONS if name == "all" else [name])]
    found: dict[str, Convention] = {}
    for convention in map(get_convention, names):
        if found.setdefault(convention.column, convention) is not convention:
            raise SpecError(f"two energy conventions are named {convention.name!r}")
    return tuple(Pricing(convention, chip) for convention in found.values())


def energy_uj(rows: Counts, convention: str = "exact", technology: str = DEFAULT_TECHNOLOGY) -> Any:
    """Return the energy of one image in microjoules: ``Pricing.of(...).energy_uj(rows)``.

    Raises:
        SpecError: no such convention or technology exists, or the convention reads a count that
            does not exist.

    >>> counts = {"effective_binary": 8000, "effective_signed": 0, "effective_level": 0}
    >>> round(energy_uj(counts | {"effective_real": 1000, "images": 2}), 6)
    0.0059
    """
    return Pricing.of(convention, technology).energy_uj(rows)


def _named(kind: str, name: str, known: Mapping[str, T], cls: type[T]) -> T:
    if not isinstance(name, str):
        raise SpecError(f"{kind} expects a name, got {name!r}")
    path, colon, variable = name.rpartition(":")
    if not (colon and path.endswith(".py")):
        if name not in known:
            raise SpecError(unknown(kind, name, known))
        return known[name]
    path = os.path.expanduser(path)
    if not Path(path).is_file():
        raise SpecError(f"no file {path!r} for {kind} {name}")
    there = vars(module_of(Path(path)))
    own = {key: value for key, value in there.items() if isinstance(value, cls)}
    if variable not in own:
        raise SpecError(unknown(f"{kind} in {path}:", variable, own))
    return own[variable]
