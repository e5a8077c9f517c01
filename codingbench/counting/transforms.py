"""Count Fourier transforms and products of complex numbers.

A complex transform of N values is taken for 5 N log2 N real additions and multiplications, and a
transform from or to real values for half of them. This is the convention of FFTW's benchmark
(benchFFT; Frigo and Johnson, "The design and implementation of FFTW3", Proc. IEEE 93 (2005)),
which also takes N for the number of values of a transform over several axes. Two of these
operations are one multiply-accumulate here. No zero is skipped.
"""

from math import log2, prod
from typing import Any, Final

import torch
from torch import Tensor

_aten = torch.ops.aten
TRANSFORMS: Final = frozenset({_aten._fft_r2c, _aten._fft_c2r, _aten._fft_c2c})

_COMPLEX_PRODUCT = 4  # real products


def transform_macs(packet: Any, args: tuple[Any, ...], output: Tensor) -> tuple[int, int]:
    """Return the multiply-accumulates of one transform, and the number of transforms.

    >>> image = torch.zeros(3, 32, 32)
    >>> args = (image, [1, 2], 0, True)
    >>> transform_macs(_aten._fft_r2c, args, torch.zeros(3, 32, 17))
    (12800, 3)
    """
    whole = output if packet is _aten._fft_c2r else args[0]
    size = prod(whole.shape[axis] for axis in args[1])
    per_value = 2.5 if packet is _aten._fft_c2c else 1.25
    return round(per_value * size * log2(size)) if size > 1 else 0, whole.numel() // max(1, size)


def products_each(*factors: Tensor) -> int:
    """Return how many real products a product of two tensors takes for each value."""
    complex_ones = sum(factor.is_complex() for factor in factors)
    return (1, 2, _COMPLEX_PRODUCT)[complex_ones]
