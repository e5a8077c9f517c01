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
SUMS: Final = _packets("add", "add_", "sub", "sub_", "rsub")
PRODUCTS: Final = _packets("mul", "mul_", "div", "div_")
PRODUCT_SUMS: Final = _packets(
    "addcmul", "addcmul_", "addcdiv", "addcdiv_", "lerp", "lerp_", "_prelu_kernel"
)
"""Operations with one product for each value of the result."""
SQUARES: Final = _packets(
    "var", "std", "var_mean", "std_mean", "linalg_vector_norm", "norm", "cumsum"
)
"""Reductions with one product, or one sum, for each value that they read."""

_MOVES: Final = _packets(
    "_to_copy",
    "_unsafe_view",
    "cat",
    "clone",
    "constant_pad_nd",
    "copy_",
    "embedding",
    "flip",
    "gather",
    "im2col",
    "index",
    "index_copy",
    "index_copy_",
    "index_put",
    "index_put_",
    "index_select",
    "masked_scatter",
    "masked_select",
    "max_unpool2d",
    "max_unpool3d",
    "pixel_shuffle",
    "pixel_unshuffle",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "repeat",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
    "roll",
    "scatter",
    "scatter_",
    "select_backward",
    "slice_scatter",
    "select_scatter",
    "split",
    "split_with_sizes",
    "stack",
    "take",
    "tril",
    "triu",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact2d",
)
"""Operations, besides views, that only move values."""

_SELECTIONS: Final = _packets(
    "_log_softmax",
    "_safe_softmax",
    "_softmax",
    "aminmax",
    "cummax",
    "cummin",
    "kthvalue",
    "logcumsumexp",
    "logsumexp",
    "median",
    "mode",
    "native_dropout",
    "sort",
    "topk",
    "multinomial",
)
"""Operations that compare or transform single signals, which no convention prices."""

_CHOICES: Final = _packets(
    "clamp",
    "clamp_",
    "clamp_max",
    "clamp_min",
    "copysign",
    "fill",
    "fill_",
    "fmax",
    "fmin",
    "fmod",
    "fmod_",
    "masked_fill",
    "masked_fill_",
    "maximum",
    "minimum",
    "remainder",
    "remainder_",
    "where",
)
"""Operations of several tensors, element by element, that choose or wrap values."""


def is_free(func: Any, has_weight: bool, is_binary: bool) -> bool:
    """Return whether an operation only moves, compares, draws or transforms single values.

    Args:
        func: the operation.
        has_weight: whether one of its arguments is a weight, and another one is not.
        is_binary: whether it combines several tensors of signals.
    """
    packet = func._overloadpacket
    if packet in _MOVES or packet in _CHOICES:
        return True
    if has_weight:
        return False
    if torch.Tag.nondeterministic_seeded in func.tags or packet.__name__ in _CREATIONS:
        return True
    return packet in _SELECTIONS or (torch.Tag.pointwise in func.tags and not is_binary)


_CREATIONS: Final = frozenset(
    {
        "bernoulli_",
        "empty_like",
        "exponential_",
        "full_like",
        "lift_fresh",
        "new_empty",
        "new_empty_strided",
        "new_full",
        "new_ones",
        "new_zeros",
        "normal_",
        "ones_like",
        "random_",
        "resize_",
        "set_",
        "uniform_",
        "zero_",
        "zeros_like",
    }
)


def factor_of(packet: Any, args: tuple[Any, ...]) -> float:
    """Return by what a product with a number multiplies; 1 for other operations."""
    scale = args[1] if packet in PRODUCTS and len(args) > 1 else 1
    if not isinstance(scale, int | float) or scale == 0:
        return 1.0
    return 1 / scale if packet.__name__.startswith("div") else float(scale)


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
