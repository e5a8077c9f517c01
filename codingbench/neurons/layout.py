"""The order of feature maps in memory.

    channels-last:  [B, C, H, W] with memory [B, H, W, C], and [T, B, C, H, W] of such steps

Convolutions are fastest in this order, on a GPU and on a CPU. Folding time into the batch is then a
view. The rows of channels that neurons and normalisations read are views as well.

On a CPU it is used in bfloat16 only. In single precision, a strided 1x1 convolution of fewer than
16 channels in this order writes outside its memory (oneDNN issue 6035, present in torch 2.14).
"""

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Return whether every step of [T, B, C, H, W] is channels-last and not also contiguous."""
    return x.dim() == 5 and x.stride(2) == 1 and not x[0].is_contiguous()


def to_channels_last(x: Tensor) -> Tensor:
    """Return [..., C, H, W] with its channels last in memory; copy it only if they are not.

    Unlike ``contiguous(memory_format=torch.channels_last)`` it accepts any number of dimensions. A
    single channel gets the strides by which convolutions recognise the order.
    """
    moved = x.movedim(-3, -1)
    return moved.contiguous().view(-1).view(moved.shape).movedim(-1, -3)


def keeps_channels_last(device: torch.device, precision: str | None = None) -> bool:
    """Return whether networks are channels-last: on CUDA, and on a CPU in bfloat16.

    Args:
        device: where the network runs.
        precision: ``fp32`` or ``bf16``; None: of the present autocast context.
    """
    if device.type != "cpu":
        return device.type == "cuda"
    return torch.is_autocast_enabled("cpu") if precision is None else precision == "bf16"


def as_device_prefers(x: Tensor) -> Tensor:
    """Return images [B, C, H, W] or codes [T, B, C, H, W] in the order that suits their device.

    Operations of a coding, such as drawing random numbers or stacking steps, may lose the order.
    """
    return to_channels_last(x) if keeps_channels_last(x.device) else x
