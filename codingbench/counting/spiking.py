"""Recognise spiking neurons by what they do, and count their arithmetic as membrane updates.

Neurons of snntorch and modules declared with :func:`codingbench.neurons.spiking` are known. Of the
other modules, a neuron is one that turns numbers into spikes, on all batches together:

- its first input has other values than -1, 0 and 1 in some batch,
- all values that it returns are in {0, 1} or {-1, 0, 1}, some of them 0 and some not, and have the
  shape of that input,
- its class is not one of torch, and no synapse is inside it.

A module of the same class as a recognised neuron is one, too, if all it returns are spikes, even
where its own input is spikes or it stays silent. Of nested modules the innermost is the neuron. The
exception is a spike function, such as a module for the surrogate: at every call the larger values
of its input became spikes. If the module around it does arithmetic, that one is the neuron.

Until the last batch it is open what a module is. Its arithmetic is therefore counted like that of
any module, and left out of the rows if the module turns out to be a neuron. Its synapses and
normalisation stay.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from snntorch._neurons.neurons import SpikingNeuron
from torch import Tensor, nn

from codingbench.backbone import Backbone, Network
from codingbench.counting.ledger import Ledger
from codingbench.counting.tally import Layer, Tallies, Tally
from codingbench.counting.value_classes import is_spikes
from codingbench.encoder import Code, Encoder
from codingbench.neurons.declared import declaration, spikes_of

UPDATE: Final = ("residual", "gate", "bias", "pool")
"""Kinds of work that are part of a membrane update if they happen inside a neuron."""

_MEMBRANE: Final = ("residual", "gate", "bias")
"""Kinds of work that compute a membrane."""

THRESHOLDS: Final = frozenset(
    getattr(torch.ops.aten, f"{name}{ending}")
    for name in ("gt", "ge", "lt", "le", "heaviside", "sign", "sgn", "floor", "ceil", "round")
    for ending in ("", "_")
    if hasattr(torch.ops.aten, f"{name}{ending}")
)
"""Operations that make spikes from numbers."""


@dataclass
class Seen:
    """The behaviour, on all batches so far, of a module that may be a neuron."""

    cls: type
    contradicts: bool = False  # returned something else than spikes of the shape of its input
    has_run: bool = False
    turned: bool = False  # returned spikes for numbers
    rested: bool = False  # returned some 0
    passes_only: bool = True  # always returned the memory of its input
    is_function: bool = True  # always the larger values of its input became spikes

    @property
    def is_evident(self) -> bool:
        """True if the module has been seen to turn numbers into spikes."""
        return self.turned and self.rested and not self.contradicts


@dataclass(frozen=True)
class Given:
    """The first input of a running module, as far as the decision needs it."""

    x: Tensor
    is_spikes: bool


class Neurons:
    """The neurons of a network: those that are known, and those that the batches reveal."""

    def __init__(self, network: nn.Module) -> None:
        modules = dict(network.named_modules())
        self._modules = modules
        self._known = {name for name, module in modules.items() if _is_known(module)}
        self._candidates = {
            name: Seen(type(module))
            for name, module in modules.items()
            if name and not _is_within(name, self._known) and _may_be_neuron(module)
        }
        self._thresholds: set[str] = set()  # modules that make spikes themselves

    def is_candidate(self, name: str) -> bool:
        """Return whether the batches decide if the module is a neuron."""
        return name in self._candidates

    def emitted(self, name: str, output: Any) -> Tensor | None:
        """Return the spikes of a known neuron, or the code; None for all other modules."""
        module = self._modules[name]
        if name not in self._known and not isinstance(module, Code):
            return None
        made = declaration(module)
        return spikes_of(output, made.output if made else 0)

    def given(self, args: Iterable[Any], ledger: Ledger) -> Given | None:
        """Examine the first input of a candidate, before it runs."""
        x = next((x for x in args if isinstance(x, Tensor)), None)
        if x is None or not x.is_floating_point():
            return None
        return Given(x, is_spikes(x, ledger))

    def examined(
        self, name: str, given: Given | None, output: Any, ledger: Ledger
    ) -> Tensor | None:
        """Return the output of a candidate if it may be the spikes of a neuron, else None."""
        seen, spk = self._candidates[name], spikes_of(output)
        if (
            given is None
            or spk is None
            or spk.shape != given.x.shape
            or not spk.is_floating_point()
            or not is_spikes(spk, ledger)
        ):
            seen.contradicts = True
            return None
        seen.passes_only &= spk.data_ptr() == given.x.data_ptr()
        seen.is_function &= ledger.decide(partial(_are_largest, given.x, spk))
        return spk

    def witnessed(self, name: str, given: Given, tallies: Tallies) -> Tallies:
        """Return tallies of a candidate that note what it did when they are made."""
        seen = self._candidates[name]
        takes_numbers = not given.is_spikes  # the closure must not keep the input in memory

        def make() -> list[Tally]:
            made = tallies()
            spikes = sum(tally.spikes for tally in made)
            seen.has_run = True
            seen.turned |= spikes > 0 and takes_numbers
            seen.rested |= spikes < sum(tally.counts["neuron_updates"] for tally in made)
            return made

        return make

    def thresholded(self, name: str, output: Any) -> None:
        """Note that a module compared or rounded activations itself."""
        if isinstance(output, Tensor) and output.dim() > 1:
            self._thresholds.add(name)

    def found(self, layers: Collection[Layer]) -> set[str]:
        """Return the names of all neurons, given the layers of all batches."""
        evident = {name for name, seen in self._candidates.items() if seen.is_evident}
        classes = {self._candidates[name].cls for name in evident}
        classes -= {seen.cls for seen in self._candidates.values() if seen.contradicts}
        alike = {
            name
            for name, seen in self._candidates.items()
            if seen.cls in classes and seen.has_run and not seen.passes_only
        }
        neurons = set(self._known)
        for name in sorted(evident | alike, key=lambda name: -name.count(".")):
            inner = {neuron for neuron in neurons if _is_within(neuron, {name})}
            if _works(layers, {name}, {"synapse"}, within=True):
                continue
            computes = _works(layers, {name}, _MEMBRANE) and self._are_functions(inner)
            if computes or not inner:
                neurons = (neurons - inner) | {name}
        return neurons

    def kept(self, layers: Collection[Layer]) -> list[Layer]:
        """Return the layers without candidates that are no neurons, and without their updates."""
        neurons = self.found(layers)
        updates = {layer.name for layer in layers if _is_within(layer.name, neurons)}

        def is_kept(layer: Layer) -> bool:
            if layer.kind == "neuron":
                return layer.name in neurons
            return layer.kind not in UPDATE or layer.name not in updates

        return [layer for layer in layers if is_kept(layer)]

    def undecided(self, layers: Collection[Layer], part: str) -> list[str]:
        """Return the modules of a part of the network that may be or contain other neurons.

        These are candidates that returned nothing but spikes without enough evidence. In the
        backbone they are also modules that make spikes themselves, and spike functions whose
        membrane is computed by the module around them.

        Args:
            layers: the layers of all batches.
            part: ``encoder`` or ``backbone``.
        """
        neurons = self.found(layers)
        names = {name for name in self._open() if not _around(name, neurons)}
        if part == "backbone":
            names |= self._thresholds
        names = {name for name in names if not _is_within(name, neurons)}
        if part == "backbone":
            names |= self._spike_functions(layers, neurons - self._known)
        modules = {name: self._modules[name] for name in names if _is_within(name, {part})}
        return sorted(name for name, module in modules.items() if declaration(module) is None)

    def _open(self) -> set[str]:
        """Return the candidates whose outputs were all spikes, without evidence of a neuron."""
        seen = self._candidates.items()
        ran = {name for name, it in seen if it.has_run and not it.contradicts}
        return {
            name
            for name in ran
            if not self._candidates[name].is_evident and not self._candidates[name].passes_only
        }

    def _spike_functions(self, layers: Collection[Layer], neurons: set[str]) -> set[str]:
        """Return the neurons without memory that run in a module with arithmetic of its own."""
        functions = {name for name in neurons if self._are_functions({name})}
        return {name for name in functions if _works(layers, {self._caller(name)}, _MEMBRANE)}

    def _are_functions(self, names: Iterable[str]) -> bool:
        """Return whether no module of their classes has shown a memory."""
        with_memory = {seen.cls for seen in self._candidates.values() if not seen.is_function}
        return all(self._candidates[name].cls not in with_memory for name in names)

    def _caller(self, name: str) -> str:
        """Return the name of the nearest module around another one that can run."""
        around = name.rpartition(".")[0]
        is_list = isinstance(self._modules[around], nn.ModuleList | nn.ModuleDict)
        return self._caller(around) if is_list else around


def _is_known(module: nn.Module) -> bool:
    made = declaration(module)
    return isinstance(module, SpikingNeuron) if made is None else made.is_neuron


def _may_be_neuron(module: nn.Module) -> bool:
    """Return whether the batches decide if a module is a neuron."""
    if declaration(module) or isinstance(module, Code | Encoder | Backbone | Network):
        return False
    if type(module).__module__.startswith("torch."):
        return False
    return not any(map(_is_known, module.modules()))


def _are_largest(x: Tensor, spk: Tensor) -> Tensor:
    """Return whether no value of ``x`` without a spike exceeds one with a spike."""
    fires = spk > 0
    return x.where(fires, math.inf).min() >= x.where(~fires, -math.inf).max()


def _works(
    layers: Iterable[Layer], names: set[str], kinds: Collection[str], within: bool = False
) -> bool:
    """Return whether modules of these names, or any inside them, do work of some kinds."""
    return any(
        layer.kind in kinds and (_is_within(layer.name, names) if within else layer.name in names)
        for layer in layers
    )


def _is_within(name: str, names: Iterable[str]) -> bool:
    """Return whether a module is one of those names, or inside one.

    >>> _is_within("backbone.lif.spike", {"backbone.lif"}), _is_within("lif2", {"lif"})
    (True, False)
    """
    return any(f"{name}.".startswith(f"{each}.") for each in names)


def _around(name: str, names: Iterable[str]) -> bool:
    """Return whether some of the modules of those names are inside another one."""
    return any(each != name and _is_within(each, {name}) for each in names)
