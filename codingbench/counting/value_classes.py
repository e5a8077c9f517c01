"""Determine the value class of a layer's input, which decides between adding and multiplying."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

_LEVELS = (1, 4, 9, 16, 25, 36, 49, 64)  # n of values k/n: sums (1), averages over pooled windows


@dataclass(frozen=True)
class Values:
    """Class and counts of the values of a tensor [row, feature]."""

    value_class: str
    """``binary`` {0, 1}, ``signed`` {-1, 0, 1}, ``level`` (k/n for an integer k and the n of a sum
    or a pooling window), else ``real``."""
    nonzero: Float64[Tensor, "feature"]
    """Number of rows in which each feature is not 0; exact, on the CPU."""
    magnitude: float
    """Sum of |value|; for ``real`` the number of values that are not 0."""
    size: int
    """Number of values."""

    @property
    def rate(self) -> float:
        """Mean |value|: the firing rate of spikes; for ``real`` the share that is not 0."""
        return self.magnitude / self.size if self.size else 0.0


class Measurements:
    """Measures tensors [step, rows, ...] and caches the last few results.

    The output of a neuron is the input of the next layer, and is measured only once.
    """

    def __init__(self) -> None:
        # Keeps the tensors alive, or their addresses would be reused.
        self._known: deque[tuple[Any, Tensor, Sequence[Values]]] = deque(maxlen=3)

    def values(self, x: Tensor, is_binary: bool = False) -> Sequence[Values]:
        """Return the values at each step; ``is_binary`` says that they are known to be 0 and 1."""
        flat = _flat(x)
        known = self._recall(flat)
        if known is None:
            numbers = flat if flat.is_floating_point() else flat.float()
            known = [measure(part, is_binary) for part in numbers]
            self._known.append((_identity(flat), flat, known))
        return known

    def spike_rates(self, x: Tensor) -> list[float | None]:
        """Return the firing rate at each step if all values are 0 or 1, else None."""
        flat = _flat(x)
        known = self._recall(flat)
        if known is None:
            return [spike_rate(part) for part in flat]
        return [values.rate if values.value_class == "binary" else None for values in known]

    def forget(self) -> None:
        """Clear the cache, because a tensor may have changed or the batch has ended."""
        self._known.clear()

    def _recall(self, flat: Tensor) -> Sequence[Values] | None:
        identity = _identity(flat)
        return next((values for known, _, values in self._known if known == identity), None)


def measure(x: Float[Tensor, "row feature"], is_binary: bool = False) -> Values:
    """Return class and counts of a tensor, in as few passes over it as possible.

    Args:
        x: the values.
        is_binary: whether they are known to be 0 and 1.
    """
    may_spike = is_binary or _is_binary(_sample(x).abs())
    if is_binary or (may_spike and _is_binary(x)):
        # The sum counts the rows exactly, up to 2^24 of them.
        nonzero = x.sum(0, dtype=torch.float32).cpu().double()
        return Values("binary", nonzero, float(nonzero.sum()), x.numel())
    mask = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    nonzero = _rows_without_zero(x, out=mask)
    if may_spike and _is_binary(x.abs()):
        return Values("signed", nonzero, float(nonzero.sum()), x.numel())
    busiest = nonzero.topk(min(16, len(nonzero))).indices
    few = x[:, busiest.to(x.device)]
    if any(_is_multiple(few, n, nonzero[busiest]) and _is_multiple(x, n, nonzero) for n in _LEVELS):
        magnitude = float(x.abs().sum(0, dtype=torch.float32).cpu().double().sum())
        return Values("level", nonzero, magnitude, x.numel())
    return Values("real", nonzero, float(nonzero.sum()), x.numel())


def spike_rate(x: Float[Tensor, "row feature"]) -> float | None:
    """Return the mean of a tensor of 0 and 1, or None for other tensors."""
    if not (_is_binary(_sample(x)) and _is_binary(x)):
        return None
    return float(x.sum(0, dtype=torch.float32).cpu().double().sum()) / max(1, x.numel())


def _sample(x: Tensor) -> Tensor:
    # Nearly every 16th row and column. 7/113 avoids steps that could hit only zero padding.
    return x[:: 1 + x.shape[0] * 7 // 113, :: 1 + x.shape[1] * 7 // 113]


def _is_binary(x: Tensor) -> bool:
    """Return whether x - x^2 is 0 everywhere, as it is only for 0 and 1 in any float format."""
    if not x.numel():
        return True
    low, high = torch.addcmul(x, x, x, value=-1).aminmax()
    return bool(low == 0) and bool(high == 0)


def _is_multiple(x: Tensor, n: int, nonzero: Tensor) -> bool:
    """Return whether every value is k/n up to rounding, where tiny values do not count as 0."""
    scaled = x.float() * n
    nearest = scaled.round()
    low, high = scaled.sub_(nearest).aminmax()
    if not (low > -1e-5 and high < 1e-5):
        return False
    return torch.equal(_rows_without_zero(nearest, out=scaled), nonzero)


def _rows_without_zero(x: Tensor, out: Tensor) -> Tensor:
    """Count the rows in which each feature is not 0, exactly up to 2^24; overwrite ``out``."""
    # On a CPU, torch sums float32 more than ten times faster than booleans.
    counts: Tensor = torch.ne(x, 0, out=out).sum(0).cpu().double()
    return counts


def _flat(x: Tensor) -> Tensor:
    """Reshape [step, rows, ...] to [step, row, feature]."""
    return x.reshape(len(x), x.shape[1] if x.dim() > 1 else 1, -1)


def _identity(x: Tensor) -> tuple[Any, ...]:
    return x.data_ptr(), x.shape, x.stride(), x.dtype
