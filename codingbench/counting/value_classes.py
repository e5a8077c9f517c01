"""Which kind of values a layer's input holds: it decides between adding and multiplying."""

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
    """What the values of a tensor are.

    ``value_class``: ``binary`` {0, 1}, ``signed`` {-1, 0, 1}, ``level`` k/n for an integer k and an
    n of a sum or a pooling window, else ``real``.
    ``nonzero``: per feature, in how many rows it is not 0; exact, on the CPU.
    ``magnitude``: sum of |value|; of real values the number that are not 0.
    """

    value_class: str
    nonzero: Float64[Tensor, "feature"]
    magnitude: float
    size: int

    @property
    def rate(self) -> float:
        """Mean |value|, of spikes their rate; of real values the share that is not 0."""
        return self.magnitude / self.size if self.size else 0.0


class Measurements:
    """Looks at tensors [step, rows, ...], and remembers the last few until told to forget.

    A neuron's output is the next layer's input: it is looked at once.
    """

    def __init__(self) -> None:
        # The tensors themselves are kept, or their addresses would be used again.
        self._known: deque[tuple[Any, Tensor, Sequence[Values]]] = deque(maxlen=3)

    def values(self, x: Tensor, is_binary: bool = False) -> Sequence[Values]:
        """What the values are at each step; ``is_binary``: known to be 0 and 1 alone."""
        flat = _flat(x)
        known = self._recall(flat)
        if known is None:
            numbers = flat if flat.is_floating_point() else flat.float()
            known = [measure(part, is_binary) for part in numbers]
            self._known.append((_identity(flat), flat, known))
        return known

    def spike_rates(self, x: Tensor) -> list[float | None]:
        """At each step the rate of the spikes if the values are 0 and 1 alone, else None."""
        flat = _flat(x)
        known = self._recall(flat)
        if known is None:
            return [spike_rate(part) for part in flat]
        return [values.rate if values.value_class == "binary" else None for values in known]

    def forget(self) -> None:
        """Some tensor may have changed, or none will come again."""
        self._known.clear()

    def _recall(self, flat: Tensor) -> Sequence[Values] | None:
        identity = _identity(flat)
        return next((values for known, _, values in self._known if known == identity), None)


def measure(x: Float[Tensor, "row feature"], is_binary: bool = False) -> Values:
    """Class and counts of a tensor, in as few passes over it as will do.

    ``is_binary``: it is known to hold 0 and 1 alone.
    """
    may_spike = is_binary or _is_binary(_sample(x).abs())
    if is_binary or (may_spike and _is_binary(x)):
        # The sum of rows counts them, exactly up to 2^24 rows.
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
    """Mean of a tensor of 0 and 1; None of any other."""
    if not (_is_binary(_sample(x)) and _is_binary(x)):
        return None
    return float(x.sum(0, dtype=torch.float32).cpu().double().sum()) / max(1, x.numel())


def _sample(x: Tensor) -> Tensor:
    # 7/113 is nearly 1/16, but its multiples fall on no one row or column, as of zero padding.
    return x[:: 1 + x.shape[0] * 7 // 113, :: 1 + x.shape[1] * 7 // 113]


def _is_binary(x: Tensor) -> bool:
    """Whether x - x^2, which is 0 at 0 and 1 alone, is 0 everywhere; in any floating format."""
    if not x.numel():
        return True
    low, high = torch.addcmul(x, x, x, value=-1).aminmax()
    return bool(low == 0) and bool(high == 0)


def _is_multiple(x: Tensor, n: int, nonzero: Tensor) -> bool:
    """Whether every value is k/n, up to rounding; a tiny value is not 0."""
    scaled = x.float() * n
    nearest = scaled.round()
    low, high = scaled.sub_(nearest).aminmax()
    if not (low > -1e-5 and high < 1e-5):
        return False
    return torch.equal(_rows_without_zero(nearest, out=scaled), nonzero)


def _rows_without_zero(x: Tensor, out: Tensor) -> Tensor:
    """Per feature, in how many rows it is not 0; exact up to 2^24 rows. ``out`` is overwritten."""
    # In float32: torch sums it more than ten times faster than booleans on a CPU.
    counts: Tensor = torch.ne(x, 0, out=out).sum(0).cpu().double()
    return counts


def _flat(x: Tensor) -> Tensor:
    """[step, row, feature] of [step, rows, ...]."""
    return x.reshape(len(x), x.shape[1] if x.dim() > 1 else 1, -1)


def _identity(x: Tensor) -> tuple[Any, ...]:
    return x.data_ptr(), x.shape, x.stride(), x.dtype
