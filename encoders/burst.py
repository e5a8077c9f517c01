"""Burst coding: the brighter a pixel, the more spikes and the closer together.

Source: Guo, Fouda, Eltawil & Salama, "Neural coding in spiking neural networks: a comparative study
for robust neuromorphic systems", Frontiers in Neuroscience 15 (2021) 638474, the burst code.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from codingbench.encoder import PixelEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("burst")
class BurstEncoder(PixelEncoder):
    """A pixel of intensity x spikes ceil(N x) times from step 0 on, every

        ceil(T - (T - shortest) x)

    steps, as far as that is within the T steps.

    Args:
        most_spikes: N, of a burst; 5 in the source.
        shortest: interval between the spikes of a pixel of intensity 1, in steps. At least 1.

    Raises:
        ValueError: most_spikes or shortest is less than 1.
    """

    emits = "binary"

    def __init__(self, setting: Setting, *, most_spikes: int = 5, shortest: int = 1) -> None:
        super().__init__(setting)
        if most_spikes < 1 or shortest < 1:
            raise ValueError(
                f"most_spikes and shortest must be at least 1, got {most_spikes} and {shortest}"
            )
        self.most_spikes, self.shortest = most_spikes, shortest

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """Return spikes [T, B, C, H, W] of images [B, C, H, W]; ``generator`` is not used."""
        longest = max(self.num_steps, self.shortest)
        count = torch.ceil(self.most_spikes * images)
        interval = torch.ceil(longest - (longest - self.shortest) * images)
        steps = torch.arange(self.num_steps, device=images.device).reshape(-1, 1, 1, 1, 1)
        is_due = (steps % interval == 0) & (steps / interval < count)
        return is_due.to(images.dtype)
