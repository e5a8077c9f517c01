"""Rate coding: the brighter a pixel, the more often it spikes.

Source: the Poisson code of the field in discrete time, one Bernoulli draw per pixel and step;
snntorch.spikegen.rate draws from the same distribution.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from codingbench.encoder import PixelEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("rate")
class RateEncoder(PixelEncoder):
    """P(spk[t] = 1) = min(1, gain * x), independently for every pixel and step.

    Args:
        gain: expected spikes per step of a pixel of intensity 1; positive.

    Raises:
        ValueError: gain is not positive.
    """

    emits = "binary"
    is_deterministic = False

    def __init__(self, setting: Setting, *, gain: float = 1.0) -> None:
        super().__init__(setting)
        if not gain > 0:
            raise ValueError(f"gain must be positive, got {gain}")
        self.gain = gain

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """Return spikes [T, B, C, H, W]; as many uniform numbers are drawn from ``generator``."""
        shape = (self.num_steps, *images.shape)
        draws = torch.rand(shape, generator=generator, device=images.device, dtype=images.dtype)
        return (draws < self.gain * images).to(images.dtype)
