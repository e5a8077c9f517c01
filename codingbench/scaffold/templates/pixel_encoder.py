"""my_coding: brighter pixels have more spikes, evenly spaced over the steps.

The number of spikes is the expected number of rate coding, but not random.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from codingbench.encoder import PixelEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("my_coding")
class MyCoding(PixelEncoder):
    """spk[t] = 1 where round((t + 1) gain x) > round(t gain x), for t = 0 to T - 1.

    A pixel of intensity x spikes round(T gain x) times in T steps. Halves are rounded up.

    Args:
        gain: spikes per step of a pixel of intensity 1, in (0, 1].

    Raises:
        ValueError: gain is outside (0, 1].
    """

    emits = "binary"

    def __init__(self, setting: Setting, *, gain: float = 1.0) -> None:
        super().__init__(setting)
        if not 0 < gain <= 1:
            raise ValueError(f"gain must be in (0, 1], got {gain}")
        self.gain = gain

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """Return the spikes of every step. They are not random: ``generator`` is not used."""
        steps = torch.arange(self.num_steps + 1, device=images.device, dtype=images.dtype)
        count = torch.floor(steps.reshape(-1, 1, 1, 1, 1) * (self.gain * images) + 0.5)
        return (count[1:] > count[:-1]).to(images.dtype)
