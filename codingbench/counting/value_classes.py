"""Determine the value class of a layer's input, which decides between adding and multiplying."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from codingbench.counting.ledger import Ledger, Number, in_double

_LEVELS = (1, 4, 9, 16, 25, 36, 49, 64)  # n of values k/n: sums (1), averages over pooled windows


@dataclass(frozen=True)
class Totals:
    """Class and totals of the values of a tensor; the numbers are known after the batch."""

    value_class: str
    """``binary`` {0, 1}, ``signed`` {-1, 0, 1}, ``level`` (k/n for an integer k and the n of a sum
    or a pooling window), else ``real``."""
    nonzero: Number
    """Number of values that are not 0."""
    magnitude: Number
    """Sum of |value|; for ``real`` the number of values that are not 0."""
    size: int
    """Number of values."""

    @property
    def rate(self) -> float:
        """Mean |value|: the firing rate of spikes; for ``real`` the share that is not 0."""
        return self.magnitude.value / self.size if self.size else 0.0


@dataclass(frozen=True)
class Values:
    """A measured tensor [row, feature]."""

    totals: Totals
    nonzero: Float64[Tensor, "feature"]
    """Number of rows in which each feature is not 0; exact, on the device of the tensor."""
    sub_steps: int = 1
    """Number of binary sub-steps of a step, whose spikes ``totals`` and ``nonzero`` count."""

    @property
    def value_class(self) -> str:
        """See :class:`Totals`."""
        return self.totals.value_class


@dataclass(frozen=True)
class SpikeRate:
    """The firing rate of a tensor; ``value`` is known after the batch."""

    sum: Number | None
    """Sum of all values; None if they are not all 0 or 1."""
    size: int
    """Number of values."""

    @property
    def value(self) -> float | None:
        """The mean of all values, or None if they are not all 0 or 1."""
        return None if self.sum is None else self.sum.value / max(1, self.size)


class Measurements:
    """Measures tensors [step, rows, ...] and caches the last few results.

    The output of a neuron is the input of the next layer, and is measured only once.
    """

    def __init__(self) -> None:
        # Keeps the tensors alive, or their addresses would be reused.
        self._known: deque[tuple[Any, Tensor, Sequence[Values]]] = deque(maxlen=3)

    def values(
        self, x: Tensor, ledger: Ledger, is_binary: bool = False, parts: int = 1
    ) -> Sequence[Values]:
        """Return the values at each step.

        Args:
            x: the tensor.
            ledger: the numbers of the batch.
            is_binary: they are known to be 0 and 1.
            parts: n, if they may be multiples of 1/n because of how they were pooled.
        """
        known = self._recall(x)
        if known is None:
            flat = _flat(x)
            numbers = flat if flat.is_floating_point() else flat.float()
            if is_binary:
                known = _spikes(numbers, ledger)
            else:
                known = [measure(part, ledger, parts) for part in numbers]
            self._known.append((_identity(x), x, known))
        return known

    def spike_rates(self, x: Tensor, ledger: Ledger) -> list[SpikeRate]:
        """Return the firing rate at each step."""
        known = self._recall(x)
        if known is None:
            return [spike_rate(part, ledger) for part in _flat(x)]
        return [
            SpikeRate(totals.magnitude if totals.value_class == "binary" else None, totals.size)
            for totals in (values.totals for values in known)
        ]

    def forget(self) -> None:
        """Clear the cache, because a tensor may have changed or the batch has ended."""
        self._known.clear()

    def _recall(self, x: Tensor) -> Sequence[Values] | None:
        identity = _identity(x)
        return next((values for known, _, values in self._known if known == identity), None)


def measure(x: Float[Tensor, "row feature"], ledger: Ledger, parts: int = 1) -> Values:
    """Return class and counts of a tensor, in as few passes over it as possible.

    Args:
        x: the tensor.
        ledger: the numbers of the batch.
        parts: n, if the values may be multiples of 1/n besides those that are always tried.
    """

    def may_be_spikes() -> Tensor:
        return _is_binary(_sample(x).abs())

    if ledger.decide(lambda: _is_binary(x), may_be_spikes):
        (values,) = _spikes(x.unsqueeze(0), ledger)
        return values
    mask = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    nonzero = _rows_without_zero(x, out=mask)
    count = ledger.number(nonzero.sum())
    if ledger.decide(lambda: _is_binary(x.abs()), may_be_spikes):
        return Values(Totals("signed", count, count, x.numel()), nonzero)
    if _is_level(x, nonzero, ledger, parts):
        magnitude = ledger.number(in_double(x.abs().sum(0, dtype=torch.float32)).sum())
        return Values(Totals("level", count, magnitude, x.numel()), nonzero)
    return Values(Totals("real", count, count, x.numel()), nonzero)


def is_spikes(x: Tensor, ledger: Ledger) -> bool:
    """Return whether all values are -1, 0 or 1."""
    if x.dim() == 0:
        return False
    rows = x.reshape(len(x), -1)
    return ledger.decide(lambda: _is_binary(rows.abs()), lambda: _is_binary(_sample(rows).abs()))


def sub_spikes(
    x: Float[Tensor, "step row *feature"], sub_steps: int, ledger: Ledger
) -> list[Values]:
    """Return the values at each step of whole numbers c that stand for c binary spikes each."""
    sums = _spikes(_flat(x), ledger)
    size = sub_steps * sums[0].totals.size
    return [Values(replace(each.totals, size=size), each.nonzero, sub_steps) for each in sums]


def spike_rate(x: Float[Tensor, "row feature"], ledger: Ledger) -> SpikeRate:
    """Return the mean of a tensor of 0 and 1, or one that is None for other tensors."""
    if not ledger.decide(lambda: _is_binary(x), lambda: _is_binary(_sample(x))):
        return SpikeRate(None, x.numel())
    magnitude = ledger.number(in_double(x.sum(0, dtype=torch.float32)).sum())
    return SpikeRate(magnitude, x.numel())


def _spikes(x: Float[Tensor, "step row feature"], ledger: Ledger) -> list[Values]:
    """Return the values at each step of a tensor of 0 and 1."""
    # The sum counts the rows exactly, up to 2^24 of them.
    nonzero = in_double(x.sum(1, dtype=torch.float32))
    counts = ledger.numbers(nonzero.sum(1))
    size = x.numel() // max(1, len(x))
    return [
        Values(Totals("binary", count, count, size), part)
        for count, part in zip(counts, nonzero, strict=True)
    ]


def _sample(x: Tensor) -> Tensor:
    # Nearly every 16th row and column. 7/113 avoids steps that could hit only zero padding.
    return x[:: 1 + x.shape[0] * 7 // 113, :: 1 + x.shape[1] * 7 // 113]


def _is_binary(x: Tensor) -> Tensor:
    """Return whether x - x^2 is 0 everywhere, as it is only for 0 and 1 in any float format."""
    if not x.numel():
        return torch.ones((), dtype=torch.bool, device=x.device)
    low, high = torch.addcmul(x, x, x, value=-1).aminmax()
    return (low == 0) & (high == 0)


def _is_level(x: Tensor, nonzero: Tensor, ledger: Ledger, parts: int) -> bool:
    """Return whether all values are multiples of 1/n for one of the n of sums and windows."""
    busiest = nonzero.topk(min(16, len(nonzero))).indices
    few = x[:, busiest.to(x.device)]
    tried = [(n, 0.0) for n in _LEVELS] + ([(parts, _rounding(x))] if parts > 1 else [])
    return any(
        ledger.decide(partial(_is_multiple, x, *n, nonzero), partial(_is_near_multiple, few, *n))
        for n in tried
    )


def _rounding(x: Tensor) -> float:
    """Return the relative error of a mean: one rounding in its format, more in single precision."""
    eps = torch.finfo(x.dtype).eps
    return max(0.51 * eps, 4 * torch.finfo(torch.float32).eps)


def _is_near_multiple(x: Tensor, n: int, relative: float) -> Tensor:
    """Return whether every value is k/n up to rounding; ``relative`` is the relative error."""
    scaled = x.float() * n
    allowed = scaled.abs() * relative if relative else None
    distance = scaled.sub_(scaled.round())
    if allowed is None:
        low, high = distance.aminmax()
        return (low > -1e-5) & (high < 1e-5)
    # Values that are too coarse to tell multiples from others are no evidence.
    return (distance.abs_().sub_(allowed).amax() < 1e-5) & (allowed.amax() < 0.25)


def _is_multiple(x: Tensor, n: int, relative: float, nonzero: Tensor) -> Tensor:
    """Return whether every value is k/n up to rounding, where tiny values do not count as 0."""
    nearest = (x.float() * n).round_()
    keeps_zeros = (_rows_without_zero(nearest, out=nearest) == nonzero).all()
    return _is_near_multiple(x, n, relative) & keeps_zeros.to(x.device)


def _rows_without_zero(x: Tensor, out: Tensor) -> Tensor:
    """Count the rows in which each feature is not 0, exactly up to 2^24; overwrite ``out``."""
    # On a CPU, torch sums float32 more than ten times faster than booleans.
    return in_double(torch.ne(x, 0, out=out).sum(0))


def _flat(x: Tensor) -> Tensor:
    """Reshape [step, rows, ...] to [step, row, feature]."""
    return x.reshape(len(x), x.shape[1] if x.dim() > 1 else 1, -1)


def _identity(x: Tensor) -> tuple[Any, ...]:
    """Return what tells a tensor from others, whatever the shape of its features if possible."""
    with suppress(RuntimeError):  # channels-last features cannot be flattened without a copy
        x = x.view(len(x), x.shape[1] if x.dim() > 1 else 1, -1)
    return x.data_ptr(), x.shape, x.stride(), x.dtype
