"""The default neuron, written in the ways in which people write neurons."""

from collections.abc import Callable
from typing import Any

import snntorch
import torch
from spikingjelly.activation_based import neuron as spikingjelly
from torch import Tensor, nn

from codingbench.neurons import MultiStepLeaky, spiking


class Lif(nn.Module):
    """All steps in one call, [T, B, ...] to [T, B, ...]; no other module inside."""

    def __init__(self, threshold: float = 1.0) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, cur: Tensor) -> Tensor:
        mem, train = torch.zeros_like(cur[0]), []
        for step in cur:
            mem = 0.5 * mem + step
            spk = (mem > self.threshold).to(cur.dtype)
            mem = mem * (1 - spk)
            train.append(spk)
        return torch.stack(train)


class LearntLif(Lif):
    """With a learnt threshold for every channel, a parameter of three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold: Any = nn.Parameter(torch.ones(1, 1, 1))


class Cell(nn.Module):
    """One step: current and membrane to spikes and membrane."""

    def forward(self, cur: Tensor, mem: Tensor) -> tuple[Tensor, Tensor]:
        mem = 0.5 * mem + cur
        spk = torch.heaviside(mem - 1, torch.zeros((), dtype=mem.dtype))
        return spk, mem - mem * spk


@spiking(output=1)
class MembraneFirst(Cell):
    """As Cell, but the spikes are the second output."""

    def forward(self, cur: Tensor, mem: Tensor) -> tuple[Tensor, Tensor]:
        spk, mem = super().forward(cur, mem)
        return mem, spk


class Steps(nn.Module):
    """Calls a cell at every step; no arithmetic of its own."""

    def __init__(self, cell: nn.Module, position: int = 0) -> None:
        super().__init__()
        self.cell, self.position = cell, position

    def forward(self, cur: Tensor) -> Tensor:
        mem, train = torch.zeros_like(cur[0]), []
        for step in cur:
            out = self.cell(step, mem)
            spk, mem = out[self.position], out[1 - self.position]
            train.append(spk)
        return torch.stack(train)


class Surrogate(nn.Module):
    """A spike function, without membrane."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)


class WithSurrogate(nn.Module):
    """All steps in one call, with a module as its spike function."""

    def __init__(self) -> None:
        super().__init__()
        self.fire: nn.Module = Surrogate()

    def forward(self, cur: Tensor) -> Tensor:
        mem, train = torch.zeros_like(cur[0]), []
        for step in cur:
            mem = mem / 2 + step
            spk = self.fire(mem - 1)
            mem = mem - spk * mem
            train.append(spk)
        return torch.stack(train)


class StraightThrough(nn.Module):
    """A spike function with arithmetic for its gradient."""

    def forward(self, x: Tensor) -> Tensor:
        soft = x.sigmoid()
        return (x > 0).to(x.dtype) + (soft - soft.detach())


class WithStraightThrough(WithSurrogate):
    """As WithSurrogate, with the other spike function."""

    def __init__(self) -> None:
        super().__init__()
        self.fire = StraightThrough()


@spiking
class Declared(Lif):
    """As Lif, declared."""


@spiking(False)
class Denied(Lif):
    """As Lif, but declared to be none."""


# SpikingJelly's neuron spikes at its threshold, the others above it.
NEURONS: dict[str, Callable[[], nn.Module]] = {
    "snntorch": lambda: Steps(
        snntorch.Leaky(0.5, threshold=1.0, reset_mechanism="zero", reset_delay=False)
    ),
    "lif": Lif,
    "learnt": LearntLif,
    "cell": lambda: Steps(Cell()),
    "membrane first": lambda: Steps(MembraneFirst(), position=1),
    "surrogate": WithSurrogate,
    "straight-through": WithStraightThrough,
    "spikingjelly": lambda: spikingjelly.LIFNode(
        tau=2.0, decay_input=False, v_threshold=1 + 2**-23, v_reset=0.0, step_mode="m"
    ),
    "declared": Declared,
}
DEFAULT: Callable[[], nn.Module] = MultiStepLeaky
