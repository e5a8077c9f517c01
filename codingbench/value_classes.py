"""Which kind of values a layer's input holds: it decides between adding and multiplying."""

from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

_LEVELS = (1, 4, 9, 16, 25, 36, 49, 64)  # n of values k/n: sums (1), averages over pooled windows


def classify(x: Float[Tensor, "row *position"], nonzero: int) -> tuple[str, float]:
    """The value class of a tensor with that many non-zero values, and its sum of magnitudes.

    ``binary`` {0, 1}, ``signed`` {-1, 0, 1}, ``level`` k/n for an integer k and an n of a sum or a
    pooling window, else ``real``.
    """
    ones = int(rows_where(torch.eq, x, 1).sum())
    if ones == nonzero:
        return "binary", float(nonzero)
    if ones + int(rows_where(torch.eq, x, -1).sum()) == nonzero:
        return "signed", float(nonzero)
    magnitude = float(x.abs().sum(0, dtype=torch.float32).cpu().double().sum())
    sample = x.flatten()[:4096]
    for n in _LEVELS:
        if _is_multiple(sample, n) and _is_multiple(x, n):
            return "level", magnitude
    return "real", magnitude


def rows_where(
    compare: Any, x: Float[Tensor, "row *position"], value: int
) -> Float64[Tensor, "*position"]:
    """How many rows of ``x`` compare true, per position, as float64 on the CPU.

    The mask is made in float32: torch sums it more than ten times faster than booleans on a CPU,
    and exactly, up to 2^24 rows. Not every device has float64.
    """
    mask = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    sums: Tensor = compare(x, value, out=mask).sum(0).cpu().double()
    return sums


def _is_multiple(x: Tensor, n: int) -> bool:
    """Whether every value is k/n, up to rounding; a tiny value is not 0/n."""
    scaled = x.float() * n
    nearest = scaled.round()
    is_near = ((scaled - nearest).abs() < 1e-4) & ((nearest != 0) | (x == 0))
    return bool(is_near.all())
