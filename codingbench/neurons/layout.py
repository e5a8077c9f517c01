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


def keeps_channels_last(device: torch.device) -> bool:
    """Whether networks on this device compute channels-last.

    On a CPU they do not, whatever the images: the convolutions are faster without, and neurons
    write their spikes in the order of the dimensions.
    """
    return device.type == "cuda"


def as_device_prefers(x: Tensor) -> Tensor:
    """Images [B, C, H, W] or codes [T, B, C, H, W], channels-last where the device keeps that.

    A coding's operations on random numbers or stacked steps lose it.
    """
    return to_channels_last(x) if keeps_channels_last(x.device) else x
