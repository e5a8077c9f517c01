"""Signed rate coding: Poisson spikes of either sign, on standardised pixels.

Source: Kim, Park, Moitra, Bhattacharjee, Venkatesha & Panda, "Rate coding or direct coding: which
one is better for accurate, robust, and energy-efficient spiking neural networks?", ICASSP 2022
(arXiv 2202.03133); the rate code of its published experiments.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from codingbench.encoder import PixelEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("signed_rate")
class SignedRateEncoder(PixelEncoder):
    """spk[t] = sign(z) with probability min(1, gain |z|), else 0;  z = (x - mean) / std.

    Pixels and steps are independent. A pixel of the mean brightness never spikes.

    Args:
        gain: expected spikes per step of a pixel one standard deviation off the mean; positive.

    Raises:
        ValueError: gain is not positive.
    """

    emits = "signed"
    is_deterministic = False
    mean: Tensor
    std: Tensor

    def __init__(self, setting: Setting, *, gain: float = 0.5) -> None:
        super().__init__(setting)
        if not gain > 0:
            raise ValueError(f"gain must be positive, got {gain}")
        self.gain = gain
        shape = (1, -1, 1, 1)
        self.register_buffer("mean", torch.tensor(setting.task.mean).reshape(shape), False)
        self.register_buffer("std", torch.tensor(setting.task.std).reshape(shape), False)

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """Return spikes [T, B, C, H, W]; as many uniform numbers are drawn from ``generator``."""
        z = (images - self.mean) / self.std
        shape = (self.num_steps, *images.shape)
        draws = torch.rand(shape, generator=generator, device=images.device, dtype=images.dtype)
        return z.sign() * (draws < self.gain * z.abs())
