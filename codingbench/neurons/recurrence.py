"""The recurrence of a leaky integrate-and-fire neuron and its adjoint, over T steps.

    v[t] = beta * h[t-1] + cur[t],  spk[t] = 1 if v[t] > threshold else 0,

where h is the membrane that is carried over, and r[t] = spk[t-1], detached. The reset mechanism
determines h:

    zero,     undelayed   h[t] = v[t] (1 - spk[t])
    zero,     delayed     h[t] = v[t] (1 - r[t+1])
    subtract, delayed     v[t] = beta * v[t-1] + cur[t] - r[t] threshold
    subtract, undelayed   h[t] = v[t] - (spk[t] - r[t]) threshold, v[t] as above,
                          r[t] = 1 if h[t-1] > threshold else 0
    none                  h[t] = v[t]

These are the resets of snntorch's ``Leaky``, for a positive threshold. The functions here are pure
and do not use autograd, so that they run both eagerly and compiled. beta and threshold are tensors
that broadcast against one step.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """The kind of a neuron, without the values of beta and threshold.

    Args:
        reset: ``zero``, ``subtract`` or ``none``, as in snntorch.
        is_delayed: the reset follows one step after the spike.
        slope: d spk / d v as a function of v - threshold.
        is_elementwise: ``slope`` is a known formula, applied to each number separately and without
            randomness.
    """

    reset: str
    is_delayed: bool
    slope: Callable[[Tensor], Tensor]
    is_elementwise: bool

    @property
    def gradient_passes_reset(self) -> bool:
        """True for an undelayed reset, which depends on the spike of this step."""
        return self.reset != "none" and not self.is_delayed


class Step(NamedTuple):
    """One time step. ``held`` is the factor of beta; it and ``reset`` are None if they are 0."""

    mem: Tensor  # v
    spk: Tensor
    held: Tensor | None
    reset: Tensor | None  # r of a reset by subtraction


class Gradients(NamedTuple):
    """Gradients of the loss by the currents of each step, and by beta and threshold if needed."""

    cur: list[Tensor]
    beta: Tensor | None
    threshold: Tensor | None


def steps(
    cur: Sequence[Tensor],
    beta: Tensor,
    threshold: Tensor,
    rule: Rule,
    into: Sequence[Tensor] | None = None,
) -> Iterator[Step]:
    """Yield the steps of the recurrence, from zero membrane.

    Spikes are written ``into`` tensors, if given: one pass over memory instead of two. A compiler
    does that by itself.
    """
    held: Tensor | None = None
    reset: Tensor | None = None
    for t, x in enumerate(cur):
        # like snntorch, round the product before the sum: same spikes for any beta
        mem = x if held is None else (beta * held).add_(x)
        if reset is not None:
            mem = mem - reset * threshold
        if into is None:
            spk = (mem > threshold).to(mem.dtype)
        else:
            spk = torch.gt(mem, threshold, out=into[t])
        yield Step(mem, spk, held, reset)
        held = mem
        if rule.reset == "zero":
            held = torch.addcmul(mem, mem, spk, value=-1)
        elif rule.reset == "subtract" and rule.is_delayed:
            reset = spk
        elif rule.reset == "subtract":
            held = mem - (spk if reset is None else spk - reset) * threshold
            reset = (held > threshold).to(mem.dtype)


def gradients(
    cur: Sequence[Tensor],
    grad_spk: Sequence[Tensor],
    beta: Tensor,
    threshold: Tensor,
    rule: Rule,
    needs_beta: bool,
    needs_threshold: bool,
    into: Sequence[Tensor] | None = None,
) -> Gradients:
    """Return the gradients, from the currents alone: recomputing v is cheaper than reading it.

    ``into`` is memory for the spikes, as in :func:`steps`.
    """
    grad_cur: list[Tensor] = []
    by_beta, by_threshold = torch.zeros_like(beta), torch.zeros_like(threshold)
    carry: Tensor | None = None  # d loss / d h[t]
    taken = [
        step if needs_beta else step._replace(held=None)  # keep only what is needed in the cache
        for step in steps(cur, beta, threshold, rule, into)
    ]
    for step, grad in zip(reversed(taken), reversed(grad_spk), strict=True):
        slope = rule.slope(step.mem - threshold)
        if carry is not None and rule.gradient_passes_reset:
            removed = step.mem if rule.reset == "zero" else threshold.expand_as(carry)
            grad = torch.addcmul(grad, carry, removed, value=-1)
        through_spk = slope.mul_(grad)
        grad_mem = through_spk
        if carry is not None and rule.reset == "zero":
            grad_mem = torch.addcmul(through_spk, carry, 1 - step.spk)
        elif carry is not None:
            grad_mem = through_spk + carry
        if needs_beta and step.held is not None:
            by_beta = by_beta + (grad_mem * step.held).sum_to_size(beta.shape)
        if needs_threshold:
            lost = -through_spk
            if step.reset is not None:
                lost = lost - step.reset * grad_mem
            if carry is not None and rule.reset == "subtract" and not rule.is_delayed:
                once = step.spk if step.reset is None else step.spk - step.reset
                lost = lost - carry * once
            by_threshold = by_threshold + lost.sum_to_size(threshold.shape)
        grad_cur.append(grad_mem)
        carry = grad_mem * beta
    grad_cur.reverse()
    return Gradients(
        grad_cur, by_beta if needs_beta else None, by_threshold if needs_threshold else None
    )
