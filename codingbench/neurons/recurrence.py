"""The recurrence of a leaky integrate-and-fire neuron and its adjoint, over T steps.

    v[t] = beta * h[t-1] + cur[t],  spk[t] = 1 if v[t] > threshold else 0,

with h, the membrane carried over, and r[t] = spk[t-1], detached, after the reset mechanism:

    zero,     undelayed   h[t] = v[t] (1 - spk[t])
    zero,     delayed     h[t] = v[t] (1 - r[t+1])
    subtract, delayed     v[t] = beta * v[t-1] + cur[t] - r[t] threshold
    subtract, undelayed   h[t] = v[t] - (spk[t] - r[t]) threshold, v[t] as above,
                          r[t] = 1 if h[t-1] > threshold else 0
    none                  h[t] = v[t]

These are snntorch's ``Leaky``, for a positive threshold. The functions here are pure and make no
use of autograd, so that they run eagerly and under a compiler alike. beta and threshold are
tensors that broadcast against one step.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """What kind of neuron it is, apart from the values of beta and threshold.

    Args:
        reset: ``zero``, ``subtract`` or ``none``, as in snntorch.
        is_delayed: the reset follows one step after the spike.
        slope: d spk / d v as a function of v - threshold.
        is_elementwise: ``slope`` is a formula, the same for each number alone, and no random one.
    """

    reset: str
    is_delayed: bool
    slope: Callable[[Tensor], Tensor]
    is_elementwise: bool

    @property
    def gradient_passes_reset(self) -> bool:
        """An undelayed reset depends on this step's spike, a delayed one is detached."""
        return self.reset != "none" and not self.is_delayed


class Step(NamedTuple):
    """One time step; ``held`` is what beta multiplied, None where it is 0, as ``reset`` is."""

    mem: Tensor  # v
    spk: Tensor
    held: Tensor | None
    reset: Tensor | None  # r of a reset by subtraction


class Gradients(NamedTuple):
    """Of the loss by the currents, one tensor per step, and by beta and threshold, where asked."""

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
    """The recurrence, from zero membrane; spikes are written ``into`` tensors where some are given
    (one pass over memory instead of two, which a compiler finds out by itself)."""
    held: Tensor | None = None
    reset: Tensor | None = None
    for t, x in enumerate(cur):
        # the product is rounded before the sum, as snntorch does it: same spikes for any beta
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
    asks_beta: bool,
    asks_threshold: bool,
    into: Sequence[Tensor] | None = None,
) -> Gradients:
    """The adjoint, from the currents alone: running the steps again costs less than reading v.

    ``into`` is room for the spikes, as in :func:`steps`.
    """
    grad_cur: list[Tensor] = []
    by_beta, by_threshold = torch.zeros_like(beta), torch.zeros_like(threshold)
    carry: Tensor | None = None  # d loss / d h[t]
    taken = [
        step if asks_beta else step._replace(held=None)  # what is not kept stays out of the cache
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
        if asks_beta and step.held is not None:
            by_beta = by_beta + (grad_mem * step.held).sum_to_size(beta.shape)
        if asks_threshold:
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
        grad_cur, by_beta if asks_beta else None, by_threshold if asks_threshold else None
    )
