"""Spikes kept for backward as bits.

A convolution keeps its input until backward, where the gradient of its weights needs it. Spikes of
T steps in bfloat16 take 2 T bytes per neuron; as bits they take one byte up to T = 8, two up to
T = 16 and four up to T = 32. The fused kernels write these bits together with the spikes, and
backward restores exactly the same tensor, so that gradients have the same bits.

    spk = attach(spk, bits)          the kernels' spikes, with their packed copy
    y = convolve(conv, spk)          over_time(conv, spk), which keeps the packed copy alone
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codingbench.neurons import launch


@dataclass(frozen=True)
class Packed:
    """A tensor of spikes that is restored from bits.

    Args:
        bits: one number per neuron, in the order in which one step lies in memory; bit t is the
            spike of step t.
        num_steps: T.
        shape, stride, dtype: those of the restored tensor, whose memory has no gaps.
    """

    bits: Tensor
    num_steps: int
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    def restore(self) -> Tensor:
        """Return the spikes."""
        spk = torch.empty_strided(
            self.shape, self.stride, dtype=self.dtype, device=self.bits.device
        )
        launch.unpack(self.bits, spk, self.num_steps)
        return spk


def attach(spk: Tensor, bits: Tensor | None) -> Tensor:
    """Return spikes [T, ...] that carry their packed copy, if there is one."""
    if bits is not None:
        spk._codingbench_bits = (bits, spk._version)  # type: ignore[attr-defined]
    return spk


def bits_of(spk: Tensor) -> Tensor | None:
    """Return the packed copy of spikes, unless they have none or were modified since."""
    bits, version = getattr(spk, "_codingbench_bits", (None, None))
    return bits if version == spk._version else None


def convolve(conv: nn.Module, spk: Tensor) -> Tensor:
    """Apply a convolution to spikes [T, B, C, H, W] at every step.

    If the spikes carry a packed copy, autograd keeps that copy instead of the spikes.
    """
    folded, bits = spk.flatten(0, 1), bits_of(spk)
    hooks: AbstractContextManager[None] = nullcontext()
    if bits is not None and torch.is_grad_enabled():
        pack = _packing(folded, bits, len(spk))
        hooks = torch.autograd.graph.saved_tensors_hooks(pack, _unpack)
    with hooks:
        y: Tensor = conv(folded)
    unfolded: Tensor = y.unflatten(0, spk.shape[:2])
    return unfolded


def _packing(folded: Tensor, bits: Tensor, num_steps: int) -> Callable[[Tensor], Tensor | Packed]:
    """Return a hook that replaces the spikes, without a reference to them: autograd keeps it."""
    address, shape = folded.data_ptr(), folded.shape

    def pack(saved: Tensor) -> Tensor | Packed:
        if saved.data_ptr() != address or saved.shape != shape:
            return saved  # the weight, or a copy of the spikes in another dtype
        return Packed(bits, num_steps, shape, saved.stride(), saved.dtype)

    return pack


def _unpack(saved: Tensor | Packed) -> Tensor:
    return saved.restore() if isinstance(saved, Packed) else saved
