"""Leaky integrate-and-fire neurons that run all time steps in one call.

    v[t] = beta * h[t-1] + cur[t],  spk[t] = 1 if v[t] > threshold else 0,  h[t] = v[t] (1 - spk[t])

This is the neuron of the GAC paper's code: snntorch's ``Leaky(beta=0.5, threshold=1,
reset_mechanism="zero", reset_delay=False)``. The gradient passes through the reset, and the
derivative of the spike is the surrogate's. Comparison is strict.
"""

from collections.abc import Callable
from typing import Any

import snntorch
import torch
from jaxtyping import Float
from snntorch._neurons.neurons import SpikingNeuron
from torch import Tensor, nn


class _Triangle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shifted: Tensor) -> Tensor:
        ctx.save_for_backward(shifted)
        return (shifted > 0).to(shifted.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (shifted,) = ctx.saved_tensors
        slope: Tensor = (1 - shifted.abs()).clamp_(min=0)
        return grad_outputs[0] * slope


def triangle(shifted: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Spike where ``shifted = v - threshold`` is positive; d spk / d v = max(0, 1 - |shifted|).

    A ``spike_grad`` for any snntorch neuron. (``snntorch.surrogate.triangular`` is another
    function: +1 below and -1 above the threshold.)
    """
    spk: Tensor = _Triangle.apply(shifted)
    return spk


class _UndelayedZeroReset(torch.autograd.Function):
    """The recurrence above with its backward written by hand: saves v alone, no graph per step."""

    @staticmethod
    def forward(
        ctx: Any,
        cur: Tensor,
        beta: float,
        threshold: float,
        spike_grad: Callable[[Tensor], Tensor],
    ) -> Tensor:
        mem = torch.empty(cur.shape, dtype=cur.dtype, device=cur.device)
        spk = torch.empty_like(mem)
        kept = torch.zeros_like(mem[0])  # h: the membrane after reset
        for t in range(len(cur)):
            torch.add(cur[t], kept, alpha=beta, out=mem[t])
            torch.gt(mem[t], threshold, out=spk[t])
            torch.addcmul(mem[t], mem[t], spk[t], value=-1, out=kept)
        ctx.save_for_backward(mem)
        ctx.beta, ctx.threshold, ctx.spike_grad = beta, threshold, spike_grad
        return spk

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        grad_spk, (mem,) = grad_outputs[0], ctx.saved_tensors
        grad_cur = torch.empty_like(mem)
        carry = torch.zeros_like(mem[0])  # d loss / d h[t]
        for t in reversed(range(len(mem))):
            slope = _derivative(ctx.spike_grad, mem[t] - ctx.threshold)
            # h = v (1 - spk), so d h / d v = (1 - spk) - v slope
            torch.addcmul(grad_spk[t], carry, mem[t], value=-1, out=grad_cur[t]).mul_(slope)
            grad_cur[t].addcmul_(carry, (mem[t] <= ctx.threshold).to(carry.dtype))
            torch.mul(grad_cur[t], ctx.beta, out=carry)
        return grad_cur, None, None, None


def _derivative(spike_grad: Callable[[Tensor], Tensor], shifted: Tensor) -> Tensor:
    """The surrogate's derivative at ``shifted``, asked of the surrogate itself."""
    if spike_grad is triangle:
        return shifted.abs_().neg_().add_(1).clamp_(min=0)
    with torch.enable_grad():
        shifted = shifted.requires_grad_()
        (slope,) = torch.autograd.grad(spike_grad(shifted).sum(), shifted)
    return slope


class MultiStepLeaky(snntorch.Leaky):
    """``snntorch.Leaky`` over a whole time axis: currents [T, B, ...] to spikes [T, B, ...].

    Same outputs and gradients as calling ``snntorch.Leaky`` step by step from zero membrane;
    nothing is kept between calls. With ``reset_mechanism="zero"``, ``reset_delay=False`` and fixed
    ``beta`` and ``threshold`` one hand-written operation does it; any other setting runs
    snntorch's own step T times. Keeps the dtype of its input in the first case.

    Args:
        beta: decay of the membrane per step, in [0, 1].
        threshold: a membrane strictly above it spikes; positive.
        spike_grad: surrogate, called with v - threshold.
        settings: further arguments of ``snntorch.Leaky``; ``init_hidden`` and ``output`` have no
            meaning here.

    Raises:
        ValueError: beta outside [0, 1] or threshold not positive.
    """

    def __init__(
        self,
        beta: float = 0.5,
        threshold: float = 1.0,
        spike_grad: Callable[[Tensor], Tensor] = triangle,
        reset_mechanism: str = "zero",
        reset_delay: bool = False,
        **settings: Any,
    ) -> None:
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be in [0, 1], got {beta}")
        if not threshold > 0:
            raise ValueError(f"threshold must be positive, got {threshold}")
        super().__init__(
            beta=beta,
            threshold=threshold,
            spike_grad=spike_grad,
            reset_mechanism=reset_mechanism,
            reset_delay=reset_delay,
            **settings,
        )
        # snntorch keeps every neuron ever made alive in a class-wide list, for its own reset
        # helpers, which this class does not need.
        SpikingNeuron.instances.remove(self)
        learns = settings.get("learn_beta", False) or settings.get("learn_threshold", False)
        is_plain = not learns and set(settings) <= {"learn_beta", "learn_threshold"}
        self.is_fused = reset_mechanism == "zero" and not reset_delay and is_plain
        self._beta, self._threshold = float(beta), float(threshold)

    def forward(
        self, cur: Float[Tensor, "time batch *feature"]
    ) -> Float[Tensor, "time batch *feature"]:
        """Spikes of all steps, from zero membrane."""
        if self.is_fused:
            spk: Tensor = _UndelayedZeroReset.apply(
                cur, self._beta, self._threshold, self.spike_grad
            )
            return spk
        mem, train = torch.zeros_like(cur[0]), []
        for step in cur:
            spk, mem = super().forward(step, mem)
            train.append(spk)
        self.mem = torch.zeros(0, device=cur.device)  # no graph is held between calls
        return torch.stack(train)


def is_known_binary(neuron: nn.Module) -> bool:
    """Whether a module is a neuron that by construction emits 0 and 1 alone and changes no tensor
    but its own, so that nobody need look."""
    return (
        isinstance(neuron, MultiStepLeaky)
        and neuron.is_fused
        and type(neuron).forward is MultiStepLeaky.forward
    )


def over_time(
    layer: nn.Module, x: Float[Tensor, "time batch *feature"]
) -> Float[Tensor, "time batch *out"]:
    """Apply a stateless layer to every step at once, time folded into the batch."""
    y: Tensor = layer(x.flatten(0, 1))
    unfolded: Tensor = y.unflatten(0, x.shape[:2])
    return unfolded
