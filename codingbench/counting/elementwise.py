"""Classify tensor operations outside synapses, and count normalisation and pooling."""

from math import prod
from typing import Any, Final

import torch

from codingbench.counting.tally import Counts

_aten = torch.ops.aten


def _packets(*names: str) -> frozenset[Any]:
    """Return the operations with these names that this version of torch has."""
    return frozenset(getattr(_aten, name) for name in names if hasattr(_aten, name))


NORMS: Final = _packets(
    "native_batch_norm",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update",
    "_batch_norm_with_update",
    "native_layer_norm",
    "native_group_norm",
)
WINDOWS: Final = _packets(
    "avg_pool2d",
    "avg_pool3d",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
)
POOLS: Final = WINDOWS | _packets(
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
)
SUMS: Final = _packets("add", "add_", "sub", "sub_")
PRODUCTS: Final = _packets("mul", "mul_", "div", "div_")

_MOVES: Final = _packets(
    "_to_copy",
    "_unsafe_view",
    "cat",
    "clone",
    "constant_pad_nd",
    "copy_",
    "embedding",
    "gather",
    "index",
    "index_select",
    "stack",
)
"""Operations, besides views, that only move values."""


def is_harmless(func: Any) -> bool:
    """Return whether an operation on weights only moves values or is element-wise."""
    return func.is_view or torch.Tag.pointwise in func.tags or func._overloadpacket in _MOVES


def norm_counts(size: int, is_affine: bool, rate: float | None) -> Counts:
    """Return the counts of normalising ``size`` values; ``rate`` as in :func:`syops_counts`."""
    return {
        "norm_macs": size,
        **syops_counts(size * (2 if is_affine else 1), rate),
    }


def pool_counts(size: int, read: int, produced: int, rate: float | None) -> Counts:
    """Return the counts of pooling or reducing values.

    Args:
        size: number of input values of one step.
        read: the same, counted once for each window that reads them; see :func:`values_read`.
        produced: number of output values of one step.
        rate: as in :func:`syops_counts`.
    """
    return {"pool_ops": read - produced, **syops_counts(size, rate)}


def values_read(func: Any, args: tuple[Any, ...], size: int, produced: int) -> int:
    """Return how many of ``size`` values a pooling reads; a value in several windows counts often.

    Args:
        func: the operation.
        args: its arguments.
        size: number of input values.
        produced: number of output values.
    """
    if func._overloadpacket not in WINDOWS:
        return size
    window = args[1]
    sides = args[0].dim() - 2 if len(window) == 1 else 1
    return int(produced * prod(window) ** sides)


def syops_counts(operations: int, rate: float | None) -> Counts:
    """Return operations as the package syops counts them.

    Args:
        operations: number of operations.
        rate: firing rate of the input, for accumulates; None: it has no spikes, so all are MACs.
    """
    if rate is None:
        return {"syops_macs": operations}
    return {"syops_acs": rate * operations}
