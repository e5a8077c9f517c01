"""Leaky integrate-and-fire neurons that run all time steps in one call.

    v[t] = beta * h[t-1] + cur[t],  spk[t] = 1 if v[t] > threshold else 0,  h[t] = v[t] (1 - spk[t])

This is the neuron of the GAC paper's code: snntorch's ``Leaky(beta=0.5, threshold=1,
reset_mechanism="zero", reset_delay=False)``. The membrane must exceed the threshold. The gradient
passes through the reset, and the surrogate gives the derivative of the spike. The other resets are
in :mod:`codingbench.neurons.recurrence`, their implementations in
:mod:`codingbench.neurons.backends`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import snntorch
import torch
from jaxtyping import Float
from snntorch._neurons.neurons import SpikingNeuron
from torch import Tensor, nn

from codingbench.neurons import layout, packed
from codingbench.neurons.backends import (
    is_compiled,
    run_adjoint,
    run_fused,
    run_steps,
    use_backend,
)
from codingbench.neurons.launch import LIF, lif_of
from codingbench.neurons.recurrence import Rule
from codingbench.neurons.surrogates import asked_slope, known_slope, triangle

__all__ = ["MultiStepLeaky", "is_known_binary", "over_time", "triangle", "use_backend"]


class _LeakySteps(torch.autograd.Function):
    """All steps and their adjoint.

    It saves the currents, not the membrane: other operations save the same currents, and a constant
    current takes the memory of one step.
    """

    @staticmethod
    def forward(ctx: Any, cur: Tensor, beta: Tensor, threshold: Tensor, rule: Rule) -> Tensor:
        ctx.save_for_backward(cur, beta, threshold)
        ctx.rule = rule
        return run_steps(cur.detach(), beta.detach(), threshold.detach(), rule)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        cur, beta, threshold = (saved.detach() for saved in ctx.saved_tensors)
        asks = ctx.needs_input_grad[1:3]
        return *run_adjoint(cur, grad_outputs[0], beta, threshold, ctx.rule, *asks), None


class _UndelayedZeroReset(torch.autograd.Function):
    """The recurrence above, run eagerly.

    It saves v, which is faster than recomputing it without a compiler. Reference results depend on
    the exact bits of this implementation.
    """

    @staticmethod
    def forward(
        ctx: Any,
        cur: Tensor,
        beta: float,
        threshold: float,
        slope: Callable[[Tensor], Tensor],
    ) -> Tensor:
        mem = torch.empty(cur.shape, dtype=cur.dtype, device=cur.device)
        spk = torch.empty_like(mem)
        kept = torch.zeros_like(mem[0])  # h: the membrane after reset
        for t in range(len(cur)):
            torch.add(cur[t], kept, alpha=beta, out=mem[t])
            torch.gt(mem[t], threshold, out=spk[t])
            torch.addcmul(mem[t], mem[t], spk[t], value=-1, out=kept)
        ctx.save_for_backward(mem)
        ctx.beta, ctx.threshold, ctx.slope = beta, threshold, slope
        return spk

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        grad_spk, (mem,) = grad_outputs[0], ctx.saved_tensors
        grad_cur = torch.empty_like(mem)
        carry = torch.zeros_like(mem[0])  # d loss / d h[t]
        for t in reversed(range(len(mem))):
            slope = ctx.slope(mem[t] - ctx.threshold)
            # h = v (1 - spk), so d h / d v = (1 - spk) - v slope
            torch.addcmul(grad_spk[t], carry, mem[t], value=-1, out=grad_cur[t]).mul_(slope)
            grad_cur[t].addcmul_(carry, (mem[t] <= ctx.threshold).to(carry.dtype))
            torch.mul(grad_cur[t], ctx.beta, out=carry)
        return grad_cur, None, None, None


class MultiStepLeaky(snntorch.Leaky):
    """``snntorch.Leaky`` over a whole time axis: currents [T, B, ...] to spikes [T, B, ...].

    Outputs and gradients are those of calling ``snntorch.Leaky`` step by step from zero membrane,
    for a positive threshold. No state is kept between calls. One operation computes all steps, for
    every reset and surrogate and for fixed or learnt ``beta`` and ``threshold``. It keeps the dtype
    of its input. Other settings (inhibition, quantised states, graded spikes, ...) run snntorch's
    own step T times.

    Args:
        beta: decay of the membrane per step, in [0, 1]; one number, or one per feature.
        threshold: positive; a membrane above it spikes; one number, or one per feature.
        spike_grad: surrogate; a function of v - threshold.
        reset_mechanism: ``zero``, ``subtract`` or ``none``.
        reset_delay: the reset follows one step after the spike.
        settings: further arguments of ``snntorch.Leaky``; ``init_hidden`` and ``output`` have no
            effect.

    Raises:
        ValueError: beta is outside [0, 1], or the threshold is not positive.
    """

    def __init__(
        self,
        beta: float | Tensor = 0.5,
        threshold: float | Tensor = 1.0,
        spike_grad: Callable[[Tensor], Tensor] = triangle,
        reset_mechanism: str = "zero",
        reset_delay: bool = False,
        **settings: Any,
    ) -> None:
        betas, thresholds = torch.as_tensor(beta), torch.as_tensor(threshold)
        if not ((betas >= 0) & (betas <= 1)).all():
            raise ValueError(f"beta must be in [0, 1], got {beta}")
        if not (thresholds > 0).all():
            raise ValueError(f"threshold must be positive, got {threshold}")
        super().__init__(
            beta=beta,
            threshold=threshold,
            spike_grad=spike_grad,
            reset_mechanism=reset_mechanism,
            reset_delay=reset_delay,
            **settings,
        )
        # snntorch keeps all neurons alive in a list of the class, for reset functions that this
        # class does not need.
        SpikingNeuron.instances.remove(self)
        self.is_fused = set(settings) <= {"learn_beta", "learn_threshold"}
        self._is_scalar = betas.numel() == thresholds.numel() == 1
        # beta and threshold, if they are numbers that never change
        is_constant = self._is_scalar and not any(settings.values())
        self._constants = (float(betas), float(thresholds)) if is_constant else None

    def rule(self) -> Rule:
        """Return the kind of this neuron: its reset and surrogate."""
        known = known_slope(self.spike_grad)
        slope = known or partial(asked_slope, self.spike_grad)
        return Rule(self.reset_mechanism, self.reset_delay, slope, known is not None)

    def lif(self) -> LIF | None:
        """Describe this neuron to the fused kernels; return None if they cannot compute it."""
        if self._constants is None or not is_known_binary(self):
            return None
        return lif_of(*self._constants, self.rule())

    def forward(
        self, cur: Float[Tensor, "time batch *feature"]
    ) -> Float[Tensor, "time batch *feature"]:
        """Return the spikes of all steps, from zero membrane."""
        if self.is_fused:
            known = take_spikes(cur, self)
            return self._all_steps(cur) if known is None else known
        mem, train = torch.zeros_like(cur[0]), []
        for step in cur:
            spk, mem = super().forward(step, mem)
            train.append(spk)
        self.mem = torch.zeros(0, device=cur.device)  # keep no graph between calls
        return torch.stack(train)

    def _all_steps(self, cur: Tensor) -> Tensor:
        follows = layout.keeps_channels_last(cur.device) and self._is_scalar
        if follows and layout.is_channels_last(cur):  # compute in the order of memory
            moved = self._all_steps(cur.movedim(2, -1))
            return packed.attach(moved.movedim(-1, 2), packed.bits_of(moved))
        fused = run_fused(cur, self.lif)
        if fused is not None:
            return fused
        rule = self.rule()
        is_plain = rule.reset == "zero" and not rule.is_delayed
        if self._constants and is_plain and not is_compiled(cur, rule):
            out: Tensor = _UndelayedZeroReset.apply(cur, *self._constants, rule.slope)
            return out
        dtype = torch.promote_types(cur.dtype, torch.float32)
        beta, threshold = self.beta.clamp(0, 1).to(dtype), self.threshold.to(dtype)
        if self._is_scalar:
            return leaky_steps(cur, beta, threshold, rule)
        flat = cur.flatten(2) if cur.dim() > 2 else cur.unsqueeze(2)
        beta, threshold = (p.expand(cur.shape[2:]).flatten() for p in (beta, threshold))
        spk: Tensor = _LeakySteps.apply(flat, beta, threshold, rule)
        return spk.view(cur.shape)


def leaky_steps(cur: Tensor, beta: Tensor, threshold: Tensor, rule: Rule) -> Tensor:
    """Return the spikes of all steps, from zero membrane, as one operation of autograd.

    Args:
        cur: currents [T, ...].
        beta: decay per step, one number in single precision or more; it may need a gradient.
        threshold: likewise.
        rule: reset and surrogate.
    """
    steps = cur.flatten(1), beta.reshape(()), threshold.reshape(()), rule
    spk: Tensor = _LeakySteps.apply(*steps)
    return spk.view(cur.shape)


def is_known_binary(neuron: nn.Module) -> bool:
    """Return whether a module is a neuron that is known to emit only 0 and 1.

    Such a neuron also modifies no tensor but its own, so counters need not inspect its output.
    """
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


def foretell(cur: Tensor, lif: LIF, spk: Tensor) -> Tensor:
    """Attach to currents the spikes that were computed with them, for the next neuron ``lif``."""
    cur._codingbench_spikes = (lif, spk, cur._version)  # type: ignore[attr-defined]
    return cur


def take_spikes(cur: Tensor, neuron: MultiStepLeaky) -> Tensor | None:
    """Detach the spikes from currents; return them if they are those of this neuron.

    They must not stay: autograd keeps the currents, and with them everything attached.
    """
    lif, spk, version = vars(cur).pop("_codingbench_spikes", (None, None, None))
    if spk is None or version != cur._version or neuron.lif() != lif:
        return None
    return spk  # type: ignore[no-any-return]
