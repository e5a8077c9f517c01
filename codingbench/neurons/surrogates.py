"""Spikes with a surrogate derivative.

    shifted = v - threshold,   spk = 1 if shifted > 0 else 0,   d spk / d v = slope(shifted)

A surrogate is what snntorch calls ``spike_grad``: a function of ``shifted`` with such a derivative.
snntorch's surrogates are closures without a formula for it. The formulas of the known ones are
written out here; autograd evaluates the derivative of any other.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from snntorch import surrogate
from torch import Tensor

Surrogate = Callable[[Tensor], Tensor]


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shifted: Tensor, slope: Surrogate) -> Tensor:
        ctx.save_for_backward(shifted)
        ctx.slope = slope
        return (shifted > 0).to(shifted.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (shifted,) = ctx.saved_tensors
        return grad_outputs[0] * ctx.slope(shifted), None


def triangle(shifted: Tensor) -> Tensor:
    """Return 1 where ``shifted = v - threshold`` is positive, else 0.

        d spk / d v = max(0, 1 - |shifted|)

    It is a ``spike_grad`` for any snntorch neuron. (``snntorch.surrogate.triangular`` differs: its
    derivative is +1 below and -1 above the threshold.)
    """
    spk: Tensor = _Spike.apply(shifted, triangle_slope)
    return spk


def rectangle(shifted: Tensor) -> Tensor:
    """Return 1 where ``shifted = v - threshold`` is positive, else 0.

        d spk / d v = 1 where |shifted| < 1/2, else 0

    It is a ``spike_grad`` for any snntorch neuron.
    """
    spk: Tensor = _Spike.apply(shifted, rectangle_slope)
    return spk


def triangle_slope(shifted: Tensor) -> Tensor:
    """Return max(0, 1 - |shifted|)."""
    return (1 - shifted.abs()).clamp_(min=0)


def rectangle_slope(shifted: Tensor) -> Tensor:
    """Return 1 where |shifted| < 1/2, else 0."""
    return (shifted.abs() < 0.5).to(shifted.dtype)


def atan_slope(shifted: Tensor, alpha: float) -> Tensor:
    """Return alpha / 2 / (1 + (pi alpha shifted / 2)^2)."""
    return alpha / 2 / (1 + (math.pi / 2 * alpha * shifted).square())


def fast_sigmoid_slope(shifted: Tensor, slope: float) -> Tensor:
    """Return 1 / (1 + slope |shifted|)^2."""
    return 1 / (slope * shifted.abs() + 1).square()


def sigmoid_slope(shifted: Tensor, slope: float) -> Tensor:
    """Return slope s (1 - s), where s is the logistic function of slope x shifted."""
    spk = torch.sigmoid(slope * shifted)
    return slope * spk * (1 - spk)


def sparse_fast_sigmoid_slope(shifted: Tensor, slope: float, B: float) -> Tensor:
    """Return the derivative of the fast sigmoid where shifted > B, else 0."""
    return fast_sigmoid_slope(shifted, slope) * (shifted > B)


def escape_rate_slope(shifted: Tensor, beta: float, slope: float) -> Tensor:
    """Return slope exp(-beta |shifted - 1|)."""
    return slope * torch.exp(-beta * (shifted - 1).abs())


def step_slope(shifted: Tensor) -> Tensor:
    """Return 1 where shifted > 0, else 0."""
    return (shifted > 0).to(shifted.dtype)


# qualified name of the closure -> formula; the closure's variables are the formula's parameters
_SNNTORCH: dict[str, Callable[..., Tensor]] = {
    "atan.<locals>.inner": atan_slope,
    "fast_sigmoid.<locals>.inner": fast_sigmoid_slope,
    "sigmoid.<locals>.inner": sigmoid_slope,
    "SFS.<locals>.inner": sparse_fast_sigmoid_slope,
    "spike_rate_escape.<locals>.inner": escape_rate_slope,
    "heaviside.<locals>.inner": step_slope,
    "straight_through_estimator.<locals>.inner": torch.ones_like,
}


SurrogateName = Literal["triangle", "rectangle", "atan", "fast_sigmoid", "sigmoid"]
"""The surrogates that the parameters of a neuron can name."""

_SLOPED: Final[dict[str, tuple[Callable[[float], Surrogate], float]]] = {
    "atan": (surrogate.atan, 2.0),
    "fast_sigmoid": (surrogate.fast_sigmoid, 25.0),
    "sigmoid": (surrogate.sigmoid, 25.0),
}
"""Name -> the maker of the surrogate, and snntorch's default of its slope."""


def named_surrogate(name: SurrogateName, slope: float = 0.0) -> Surrogate:
    """Return a surrogate by its name.

    Args:
        name: of this module, or of snntorch.
        slope: of the latter; 0 is snntorch's default.

    Raises:
        ValueError: the slope is negative, or the surrogate has none.
    """
    if slope < 0:
        raise ValueError(f"slope must not be negative, got {slope}")
    if name in _SLOPED:
        make, usual = _SLOPED[name]
        return make(slope or usual)
    if slope:
        raise ValueError(f"the surrogate {name} has no slope, got slope={slope:g}")
    return triangle if name == "triangle" else rectangle


@dataclass(frozen=True)
class Slope:
    """A surrogate's derivative: a formula and the values of its parameters.

    Objects with the same formula and parameters are equal, so that they share compiled code.
    """

    formula: Callable[..., Tensor]
    parameters: tuple[tuple[str, float], ...] = ()

    def __call__(self, shifted: Tensor) -> Tensor:
        return self.formula(shifted, **dict(self.parameters))


def known_slope(spike_grad: Surrogate) -> Slope | None:
    """Return the derivative of a surrogate, or None if its formula is not known."""
    if spike_grad is triangle:
        return Slope(triangle_slope)
    if spike_grad is rectangle:
        return Slope(rectangle_slope)
    name = getattr(spike_grad, "__qualname__", "")
    if getattr(spike_grad, "__module__", "") != "snntorch.surrogate" or name not in _SNNTORCH:
        return None
    parameters = inspect.getclosurevars(spike_grad).nonlocals
    if not all(isinstance(value, int | float) for value in parameters.values()):
        return None  # a tensor might be learnt
    return Slope(_SNNTORCH[name], tuple(sorted(parameters.items())))


def asked_slope(spike_grad: Surrogate, shifted: Tensor) -> Tensor:
    """Return the derivative at ``shifted`` that autograd finds for the surrogate."""
    with torch.enable_grad():
        shifted = shifted.detach().requires_grad_()
        (slope,) = torch.autograd.grad(spike_grad(shifted).sum(), shifted)
    return slope
