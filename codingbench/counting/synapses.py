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
from codingbench.counting.tally import Counts, Tally
from codingbench.counting.value_classes import Values

_SPIKES = ("binary", "signed")
_aten = torch.ops.aten


def convolution(parts: Sequence[Values], args: tuple[Any, ...], output: Tensor) -> list[Tally]:
    """Return one tally per step of a convolution.

    Args:
        parts: value class and counts of the input at each step; features are (channels,
            *positions).
        args: arguments of ``aten.convolution``.
        output: its result.
    """
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args
    shape = (x.shape[2:], weight.shape[2:], output.shape[2:])
    folds = (stride, padding, dilation, transposed, output_padding)
    fan_out = _fan_out(*map(tuple, shape), *(f if f is transposed else tuple(f) for f in folds))
    copies = weight.shape[1] if transposed else weight.shape[0] // groups
    # weight: [out, in / groups, *kernel]; transposed: [in, out / groups, *kernel]
    dense = (x if transposed else output).numel() * weight[0].numel() // len(parts)
    biased = 0 if bias is None else output.numel() // len(parts)
    missing = None
    if (weight == 0).any():
        reached = torch.ones(1, *output.shape[1:])
        missing = _read_by(reached, x.shape[1:], (weight == 0).float().cpu(), *folds, groups)
    tallies = []
    for values in parts:
        nonzero = values.nonzero.view(x.shape[1:])
        effective = int((nonzero.sum(0) * fan_out).sum()) * copies
        zero = 0 if missing is None else int((nonzero * missing).sum())
        tallies.append(_tally(values, values.value_class, effective, dense, biased, zero))
    return tallies


def weighted(parts: Sequence[Values], x: Tensor, weight: Tensor, is_biased: bool) -> list[Tally]:
    """Return one tally per step of ``x @ weight``, with x [step, ..., k] and weight [..., k, n]."""
    fan_out = weight.shape[-1]
    dense = x[0].numel() * fan_out
    biased = x[0].numel() // x.shape[-1] * fan_out if is_biased else 0
    has_zeros = bool((weight == 0).any())
    tallies = []
    for part, values in zip(x, parts, strict=True):
        effective = int(values.nonzero.sum()) * fan_out
        zero = _pairs(part != 0, weight == 0) if has_zeros else 0
        tallies.append(_tally(values, values.value_class, effective, dense, biased, zero))
    return tallies


def product(parts: Sequence[Values], x: Tensor, others: Sequence[Values], y: Tensor) -> list[Tally]:
    """Return one tally per step of a product of activations ``x @ y``.

    The factor with the less expensive value class is taken as the input.

    Args:
        parts: values of ``x`` at each step.
        x: first factor [step, ..., m, k].
        others: values of ``y`` at each step.
        y: second factor [step, ..., k, n]; its first axis is 1 if it is the same at every step.
    """
    dense = x[0].numel() * y.shape[-1]
    tallies = []
    for step, values in enumerate(parts):
        at = step if len(y) == len(x) else 0
        other, x_now, y_now = others[at], x[step], y[at]
        if (values.value_class in _SPIKES) == (other.value_class in _SPIKES):
            effective = _pairs(x_now != 0, y_now != 0)
            kinds = {values.value_class, other.value_class}
            value_class = next(c for c in ("real", "level", "signed", "binary") if c in kinds)
            tallies.append(_tally(values, value_class, effective, dense, 0, 0))
            continue
        if other.value_class in _SPIKES:
            values, fan_out = other, x_now.shape[-2]
        else:
            fan_out = y_now.shape[-1]
        effective = int(values.nonzero.sum()) * fan_out
        tallies.append(_tally(values, values.value_class, effective, dense, 0, 0))
    return tallies


def _tally(
    values: Values, value_class: str, effective: int, dense: int, biased: int, zero: int
) -> Tally:
    is_spike = value_class in _SPIKES
    counts: Counts = {
        f"effective_{value_class}": effective,
        f"dense_{value_class}": dense,
        "bias_adds": biased,
        "zero_weight_acs": zero if is_spike else 0,
        "zero_weight_macs": 0 if is_spike else zero,
        "paper_acs": 0.0 if value_class == "real" else values.rate * dense,
        **syops_counts(dense + biased, values.rate if value_class == "binary" else None),
    }
    nonzero = int(values.nonzero.sum())
    return Tally(values=values.size, nonzero=nonzero, magnitude=values.magnitude, counts=counts)


def _pairs(x: Tensor, y: Tensor) -> int:
    """Count the products in ``x @ y`` with both factors true, x [..., m, k] and y [..., k, n]."""
    pairs = x.sum(-2).cpu().double() * y.sum(-1).cpu().double()
    return int(pairs.sum())


@lru_cache(maxsize=256)
def _fan_out(
    positions: tuple[int, ...], kernel: tuple[int, ...], reached: tuple[int, ...], *folds: Any
) -> Tensor:
    """Return how many output positions read each input position, [*positions], without padding."""
    ones = (torch.ones(1, 1, *sizes) for sizes in (reached, kernel))
    return _read_by(next(ones), (1, *positions), next(ones), *folds, 1)[0]


def _read_by(output: Tensor, shape: Sequence[int], kernel: Tensor, *folds: Any) -> Tensor:
    """Return the sum of the kernel weights that multiply each input value, [*shape]."""
    image = torch.zeros(1, *shape)
    gradient, _, _ = _aten.convolution_backward(
        output, image, kernel, None, *folds[:-1], folds[-1], [True, False, False]
    )
    read: Tensor = gradient[0].double().round()
    return read
