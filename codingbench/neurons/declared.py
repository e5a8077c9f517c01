"""Declare that a module is a spiking neuron, or that it is none.

The counting of operations recognises a module that turns numbers into spikes of the same shape
(:mod:`codingbench.counting.spiking`). A declaration decides what values alone cannot tell.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, overload

from torch import Tensor, nn

_Module = TypeVar("_Module", bound=type)

_ATTRIBUTE: Final = "_codingbench_spiking"


@dataclass(frozen=True)
class Declaration:
    """The declaration of a class: whether its modules are neurons, and which output is spikes."""

    is_neuron: bool
    output: int


@overload
def spiking(is_neuron: _Module) -> _Module: ...
@overload
def spiking(is_neuron: bool = True, *, output: int = 0) -> Callable[[_Module], _Module]: ...
def spiking(is_neuron: Any = True, *, output: int = 0) -> Any:
    """Declare a class of modules, and all derived from it, to be spiking neurons or none.

        @spiking                      # also for graded or integer spikes
        class Graded(nn.Module): ...

        @spiking(output=1)            # forward returns (mem, spk)
        class Cell(nn.Module): ...

        @spiking(False)               # returns 0 and 1, but is no neuron
        class Mask(nn.Module): ...

    The output of a neuron is counted as its spikes, one for each value that is not 0, and its
    arithmetic as membrane updates. Synapses and normalisation inside it are still counted.

    Args:
        is_neuron: whether the modules are neurons.
        output: position of the spikes if ``forward`` returns a tuple or list.
    """

    def declare(cls: _Module) -> _Module:
        setattr(cls, _ATTRIBUTE, Declaration(is_neuron, output))
        return cls

    if isinstance(is_neuron, type):
        cls, is_neuron = is_neuron, True
        return declare(cls)
    return declare


def declaration(module: nn.Module) -> Declaration | None:
    """Return what the class of a module declares, or None."""
    return getattr(type(module), _ATTRIBUTE, None)


def spikes_of(output: Any, position: int = 0) -> Tensor | None:
    """Return the tensor at that position of what a module returned, or None if there is none."""
    if isinstance(output, tuple | list):
        output = output[position] if -len(output) <= position < len(output) else None
    return output if isinstance(output, Tensor) else None
