"""Small operations on pixels and on the numbers that choose them."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def to_unit(images: UInt8[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Convert pixels from uint8, 0 to 255, to float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


def onto(draws: Tensor, device: torch.device) -> Tensor:
    """Copy numbers drawn on the CPU to a device, without waiting for the device.

    A copy from pageable memory to a GPU may wait for all work queued there. A copy from pinned
    memory is itself queued, so the CPU does not wait.
    """
    if device.type != "cuda":
        return draws.to(device)
    return draws.pin_memory().to(device, non_blocking=True)
