"""Count the synaptic operations of one convolution or matrix product, per step.

Effective operations are the non-zero inputs times the number of outputs that read each of them.
Zero padding, biases and the values of the weights do not matter. In a product of two activations
(attention), a pair of spikes is one operation, and a spike times real numbers is one operation for
each number.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from codingbench.counting.elementwise import syops_counts
from codingbench.counting.ledger import Ledger, Number, in_double
from codingbench.counting.tally import Counts, Tallies, Tally
from codingbench.counting.value_classes import Totals, Values

_none = Number()
_none.value = 0.0
_SPIKES = ("binary", "signed")
_aten = torch.ops.aten


def convolution(
    parts: Sequence[Values], args: tuple[Any, ...], output: Tensor, ledger: Ledger
) -> Tallies:
    """Return one tally per step of a convolution.

    Args:
        parts: value class and counts of the input at each step; features are (channels,
            *positions).
        args: arguments of ``aten.convolution``.
        output: its result.
        ledger: the numbers of the batch.
    """
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args
    shape = (x.shape[2:], weight.shape[2:], output.shape[2:])
    folds = (stride, padding, dilation, transposed, output_padding)
    device = parts[0].nonzero.device
    hashable = (fold if fold is transposed else tuple(fold) for fold in folds)
    fan_out = _fan_out(*map(tuple, shape), device, *hashable)
    copies = weight.shape[1] if transposed else weight.shape[0] // groups
    # weight: [out, in / groups, *kernel]; transposed: [in, out / groups, *kernel]
    dense = (x if transposed else output).numel() * weight[0].numel() // len(parts)
    dense *= parts[0].sub_steps
    biased = 0 if bias is None else output.numel() // len(parts)
    nonzero = [values.nonzero.view(x.shape[1:]) for values in parts]
    effective = [ledger.number((part.sum(0) * fan_out).sum()) for part in nonzero]
    zero = [_none] * len(parts)
    if ledger.decide(lambda: (weight == 0).any()):
        ledger.leave_device()
        reached = torch.ones(1, *output.shape[1:])
        unread = (weight == 0).float().cpu()
        missing = _read_by(reached, x.shape[1:], unread, *folds, groups).to(device)
        zero = [ledger.number((part * missing).sum()) for part in nonzero]
    totals = [values.totals for values in parts]
    return lambda: [
        _tally(of, of.value_class, int(pairs.value) * copies, dense, biased, int(lost.value))
        for of, pairs, lost in zip(totals, effective, zero, strict=True)
    ]


def weighted(
    parts: Sequence[Values], x: Tensor, weight: Tensor, is_biased: bool, ledger: Ledger
) -> Tallies:
    """Return one tally per step of ``x @ weight``.

    x is [step, ..., k] and weight [k, n], or x is [step, rows, group, k] and weight [group, k, n].
    """
    fan_out = weight.shape[-1]
    sub_steps = parts[0].sub_steps
    dense = x[0].numel() * fan_out * sub_steps
    biased = x[0].numel() // x.shape[-1] * fan_out if is_biased else 0
    has_zeros = ledger.decide(lambda: (weight == 0).any())
    spikes = x if sub_steps > 1 else x != 0
    grouped = spikes.movedim(1, 2) if weight.dim() > 2 else spikes
    zero = [_pairs(part, weight == 0, ledger) if has_zeros else _none for part in grouped]
    totals = [values.totals for values in parts]
    return lambda: [
        _tally(of, of.value_class, int(of.nonzero.value) * fan_out, dense, biased, int(lost.value))
        for of, lost in zip(totals, zero, strict=True)
    ]


def product(
    parts: Sequence[Values], x: Tensor, others: Sequence[Values], y: Tensor, ledger: Ledger
) -> Tallies:
    """Return one tally per step of a product of activations ``x @ y``.

    The factor with the less expensive value class is taken as the input.

    Args:
        parts: values of ``x`` at each step.
        x: first factor [step, ..., m, k].
        others: values of ``y`` at each step.
        y: second factor [step, ..., k, n]; its first axis is 1 if it is the same at every step.
        ledger: the numbers of the batch.
    """
    dense = x[0].numel() * y.shape[-1]
    found: list[tuple[Totals, str, Number, int]] = []
    for step, values in enumerate(parts):
        at = step if len(y) == len(x) else 0
        one, other, x_now, y_now = values.totals, others[at].totals, x[step], y[at]
        if (one.value_class in _SPIKES) == (other.value_class in _SPIKES):
            kinds = {one.value_class, other.value_class}
            value_class = next(c for c in ("real", "level", "signed", "binary") if c in kinds)
            found.append((one, value_class, _pairs(x_now != 0, y_now != 0, ledger), 1))
        elif other.value_class in _SPIKES:
            found.append((other, other.value_class, other.nonzero, x_now.shape[-2]))
        else:
            found.append((one, one.value_class, one.nonzero, y_now.shape[-1]))
    return lambda: [
        _tally(totals, value_class, int(number.value) * fan_out, dense, 0, 0)
        for totals, value_class, number, fan_out in found
    ]


def broadcast(
    parts: Sequence[Values], x: Tensor, weight: Tensor, dense: int, ledger: Ledger
) -> Tallies:
    """Return one tally per step of a sum over the broadcast products ``x * weight``.

    Args:
        parts: values of ``x`` at each step.
        x: [step, ...].
        weight: the parameter.
        dense: number of products of one step.
        ledger: the numbers of the batch.
    """
    fan_out = dense // x[0].numel()
    zero = [_none] * len(x)
    if ledger.decide(lambda: (weight == 0).any()):
        copies = dense // torch.broadcast_shapes(x[0].shape, weight.shape).numel()
        lost = (in_double(part != 0) * (weight == 0) for part in x)
        zero = [ledger.number(products.sum() * copies) for products in lost]
    totals = [values.totals for values in parts]
    return lambda: [
        _tally(of, of.value_class, int(of.nonzero.value) * fan_out, dense, 0, int(none.value))
        for of, none in zip(totals, zero, strict=True)
    ]


def summed(
    parts: Sequence[Values], others: Sequence[Values], products: Tensor, ledger: Ledger
) -> Tallies:
    """Return one tally per step of a sum over broadcast products of activations.

    Args:
        parts: values of one factor at each step.
        others: values of the other at each step, or once for all.
        products: their products, [step, ...].
        ledger: the numbers of the batch.
    """
    dense = products[0].numel()
    found: list[tuple[Totals, str, Number, float]] = []
    for step, values in enumerate(parts):
        one, other = values.totals, others[step if len(others) > 1 else 0].totals
        if (one.value_class in _SPIKES) == (other.value_class in _SPIKES):
            kinds = {one.value_class, other.value_class}
            value_class = next(c for c in ("real", "level", "signed", "binary") if c in kinds)
            pairs = ledger.number(in_double(products[step] != 0).sum())
            found.append((one, value_class, pairs, 1))
        else:
            spikes = one if one.value_class in _SPIKES else other
            found.append((spikes, spikes.value_class, spikes.nonzero, dense // spikes.size))
    return lambda: [
        _tally(totals, value_class, int(number.value * fan_out), dense, 0, 0)
        for totals, value_class, number, fan_out in found
    ]


def multiplications(count: int, size: int) -> Tally:
    """Return the tally of ``count`` multiply-accumulates of ``size`` values, which skip nothing."""
    counts: Counts = {"effective_real": count, "dense_real": count, "bias_adds": 0}
    counts |= syops_counts(count, None)
    return Tally(values=size, nonzero=size, magnitude=size, counts=counts)


def _tally(
    totals: Totals, value_class: str, effective: int, dense: int, biased: int, zero: int
) -> Tally:
    is_spike = value_class in _SPIKES
    counts: Counts = {
        f"effective_{value_class}": effective,
        f"dense_{value_class}": dense,
        "bias_adds": biased,
        "zero_weight_acs": zero if is_spike else 0,
        "zero_weight_macs": 0 if is_spike else zero,
        "paper_acs": 0.0 if value_class == "real" else totals.rate * dense,
        **syops_counts(dense + biased, totals.rate if value_class == "binary" else None),
    }
    return Tally(
        values=totals.size,
        nonzero=int(totals.nonzero.value),
        magnitude=totals.magnitude.value,
        counts=counts,
    )


def _pairs(x: Tensor, y: Tensor, ledger: Ledger) -> Number:
    """Count the products in ``x @ y`` with both factors true, x [..., m, k] and y [..., k, n]."""
    return ledger.number((in_double(x.sum(-2)) * in_double(y.sum(-1))).sum())


@lru_cache(maxsize=256)
def _fan_out(
    positions: tuple[int, ...],
    kernel: tuple[int, ...],
    reached: tuple[int, ...],
    device: torch.device,
    *folds: Any,
) -> Tensor:
    """Return how many output positions read each input position, [*positions], without padding."""
    ones = (torch.ones(1, 1, *sizes) for sizes in (reached, kernel))
    return _read_by(next(ones), (1, *positions), next(ones), *folds, 1)[0].to(device)


def _read_by(output: Tensor, shape: Sequence[int], kernel: Tensor, *folds: Any) -> Tensor:
    """Return the sum of the kernel weights that multiply each input value, [*shape]."""
    image = torch.zeros(1, *shape)
    gradient, _, _ = _aten.convolution_backward(
        output, image, kernel, None, *folds[:-1], folds[-1], [True, False, False]
    )
    read: Tensor = gradient[0].double().round()
    return read
