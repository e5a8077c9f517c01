"""The order in which feature maps lie in memory.

    channels-last:  [B, C, H, W] whose memory is [B, H, W, C], and [T, B, C, H, W] of such steps

It is the order in which the convolutions of a GPU compute. Folding time into the batch is then a
view, and so is what a neuron or a normalisation reads row by row. A CPU is faster without it.
"""

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether every step of [T, B, C, H, W] is channels-last, and not contiguous as well."""
    return x.dim() == 5 and x.stride(2) == 1 and not x[0].is_contiguous()


def to_channels_last(x: Tensor) -> Tensor:
    """[..., C, H, W] with the channels last in memory; a copy only where they are not.

    Unlike ``contiguous(memory_format=torch.channels_last)`` it takes any number of dimensions, and
    one channel gets the strides by which convolutions recognise the order.
    """
    moved = x.movedim(-3, -1)
    return moved.contiguous().view(-1).view(moved.shape).movedim(-1, -3)


def laid_out_like(code: Tensor, images: Tensor) -> Tensor:
    """[T, B, C, H, W] in the order in which the images [B, C, H, W] lie, if that is channels-last.

    Operations on random numbers or stacked steps lose it.
    """
    is_last = images.stride(1) == 1 and images.stride(3) == images.shape[1]
    return to_channels_last(code) if is_last else code


def keeps_channels_last(device: torch.device) -> bool:
    """Whether networks on this device compute channels-last."""
    return device.type == "cuda"
