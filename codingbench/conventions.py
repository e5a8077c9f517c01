"""The formulas and prices that turn operation counts into energy.

A :class:`Convention` is a formula, a :class:`Technology` the price of single operations. To ship
another convention, add a function and an entry in ``_CONVENTIONS``. :mod:`codingbench.energy`
applies them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol


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
    own_prices: str = ""
    """The prices in words, if they are part of the formula and the technology does not matter. Such
    a formula describes spiking networks only: it has no ANN to compare them with."""

    @property
    def column(self) -> str:
        """The column that holds the energy by this convention beside others."""
        return f"energy_{self.name.replace('-', '_')}_uj"


# --- operations at the prices of a technology -----------------------------------------------------


def _synapses(counts: Counts, chip: Technology) -> Any:
    accumulates = counts["effective_binary"] + counts["effective_signed"]
    multiplies = counts["effective_level"] + counts["effective_real"]
    return chip.ac_pj * accumulates + chip.mac_pj * multiplies


def _exact(counts: Counts, chip: Technology) -> Any:
    return _synapses(counts, chip) + chip.mac_pj * counts["gate_muls"]


def _dense_mac(counts: Counts, chip: Technology) -> Any:
    accumulates = counts["effective_binary"] + counts["effective_signed"]
    multiplies = counts["effective_level"] + counts["dense_real"] + counts["gate_muls"]
    return chip.ac_pj * accumulates + chip.mac_pj * multiplies


def _paper(counts: Counts, chip: Technology) -> Any:
    return chip.mac_pj * counts["paper_first_macs"] + chip.ac_pj * counts["paper_acs"]


def _neurobench(counts: Counts, chip: Technology) -> Any:
    skipped = chip.ac_pj * counts["zero_weight_acs"] + chip.mac_pj * counts["zero_weight_macs"]
    return _synapses(counts, chip) - skipped


def _syops_like(counts: Counts, chip: Technology) -> Any:
    accumulates = counts["syops_acs"] + counts["neuron_updates"]
    return chip.ac_pj * accumulates + chip.mac_pj * counts["syops_macs"]


def _memory(counts: Counts, chip: Technology) -> Any:
    dense = counts["dense_signed"] + counts["dense_level"] + counts["dense_real"]
    additions = counts["pool_ops"] + counts["residual_adds"] + counts["neuron_updates"]
    accumulates = counts["effective_binary"] + counts["norm_macs"] + additions
    values = counts["effective_binary"] + dense + counts["bias_adds"] + 2 * counts["neuron_updates"]
    multiplies = dense + counts["norm_macs"] + counts["gate_muls"]
    return chip.mac_pj * multiplies + chip.ac_pj * accumulates + chip.value_pj * values


# --- formulas with prices of their own ------------------------------------------------------------


def _events(counts: Counts) -> Any:
    return sum(counts[f"effective_{kind}"] for kind in ("binary", "signed", "level", "real"))


def _lemaire(counts: Counts, chip: Technology) -> Any:
    operations = 0.1 * counts["lemaire_acs"] + (3.1 + 0.1) * counts["lemaire_macs"]
    return operations + counts["lemaire_memory_pj"]


def _loihi(counts: Counts, chip: Technology) -> Any:
    return (23.6 + 3.5) * _events(counts) + 81 * counts["neuron_updates"]


def _spinnaker2(counts: Counts, chip: Technology) -> Any:
    return 450 * _events(counts) + 2190 * counts["neuron_updates"]


def _yan22nm(counts: Counts, chip: Technology) -> Any:
    fetch, move, operation, bits = 20, 0.25, 0.05448, 8  # pJ per bit, pJ per bit, pJ, width
    per_event = operation + fetch * bits
    per_update = 2 * operation + 2 * move * bits  # compare and subtract; read and write
    return per_event * _events(counts) + per_update * counts["neuron_updates"]


_KERAS_SPIKING = "keras-spiking, ModelEnergy"

_CONVENTIONS = (
    Convention(
        "exact",
        "operations as executed, zero inputs skipped: an accumulate where the input is a spike, "
        "a multiply-accumulate where it is not or at a gate",
        "codingbench; the synaptic operations are those NeuroBench counts",
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
        "as exact, but synapses whose weight is 0 are skipped, and gates are not counted",
        "NeuroBench 2.3.0, SynapticOperations",
        _neurobench,
    ),
    Convention(
        "syops-like",
        "dense operations with padding and bias x firing rate where the input is binary, "
        "multiply-accumulates elsewhere; normalisation, pooling and one accumulate per neuron "
        "and step; gates are not counted",
        "after syops 0.0.5, with differences that codingbench/counting/README.md lists",
        _syops_like,
    ),
    Convention(
        "memory",
        "accumulates where the input is binary, dense multiply-accumulates elsewhere, "
        "normalisation, pooling, residuals, gates, an accumulate per neuron and step; and the "
        "reading of each weight and bias used, reading and writing of each membrane",
        "SpikingJelly 2.0.0, SimpleEnergy, in which gates cost nothing",
        _memory,
    ),
    Convention(
        "lemaire",
        "integer operations, addressing by spikes, and reading and writing of inputs, weights, "
        "membranes and spikes at prices that grow with the buffer; gates, pooling and "
        "normalisation are not counted",
        "Lemaire et al., arXiv 2210.13107, as SpikingJelly 2.0.0 has it (LemaireEnergyProfiler)",
        _lemaire,
        "45 nm, 32-bit integers: 0.1 pJ per addition, 3.2 pJ per MAC, 0 to 25 pJ per byte",
    ),
    Convention(
        "loihi",
        "one event for each synaptic operation, whatever its input, and one update per neuron and "
        "step; nothing else is counted",
        f"Davies et al., Loihi, IEEE Micro 38(1), 2018; {_KERAS_SPIKING}",
        _loihi,
        "Loihi, 23.6 + 3.5 pJ per synaptic event, 81 pJ per neuron update",
    ),
    Convention(
        "spinnaker2",
        "one event for each synaptic operation, whatever its input, and one update per neuron and "
        "step; nothing else is counted",
        f"Hoeppner et al., arXiv 1903.08941; {_KERAS_SPIKING}",
        _spinnaker2,
        "SpiNNaker 2, 450 pJ per synaptic event, 2.19 nJ per neuron update",
    ),
    Convention(
        "yan22nm",
        "for each synaptic operation, whatever its input, an accumulate and the fetch of an 8-bit "
        "weight; per neuron and step a comparison, a subtraction, and reading and writing of an "
        "8-bit membrane; constants second-hand",
        "Yan, Bai and Wong, arXiv 2409.08290; formula and constants second-hand, from spyx "
        "(research/new/honest_energy_accounting)",
        _yan22nm,
        "22 nm, 0.05448 pJ per operation, 20 pJ per bit of a weight, 0.25 pJ per bit of a membrane",
    ),
)

CONVENTIONS: Final = {convention.name: convention for convention in _CONVENTIONS}
"""The shipped conventions, by name."""

COMPARED: Final = ("exact", "dense-mac", "paper", "neurobench", "syops-like", "memory")
"""The conventions that ``all`` stands for: those whose prices are the technology's. The others are
shown by name."""

FORMER_NAMES: Final = {"syops": "syops-like"}
"""Names that conventions had in earlier versions."""
