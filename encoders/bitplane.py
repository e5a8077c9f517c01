"""Bit planes, then a rate or latency code of the pixel in the remaining steps.

Source: Luu et al., "Improvement of Spiking Neural Network with Bit Planes and Color Models", arXiv
2410.08229, which puts the bit planes of 8-bit images beside a common code. Published figures were
not at hand. ``phase`` is the pure form with weights; here all spikes have the same weight.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from codingbench.encoder import PixelEncoder, Setting
from codingbench.registry import register_encoder

_BITS = 8


@register_encoder("bitplane")
class BitplaneEncoder(PixelEncoder):
    """For t < P: spk[t] = floor(I / 2^(7 - t)) mod 2, I = round(255 x), t counted from 0.

    P = min(planes, T) steps hold the most significant bits. With R = T - P steps left, a pixel

        rate:     spikes at each of them with probability x
        latency:  spikes at the one numbered round((R - 1) (1 - x)) from 0, unless I is 0

    Args:
        planes: number of bit planes, 1 to 8.
        then: ``rate`` or ``latency``.

    Raises:
        ValueError: planes is not in 1..8.
    """

    emits = "binary"

    def __init__(
        self, setting: Setting, *, planes: int = 2, then: Literal["rate", "latency"] = "rate"
    ) -> None:
        super().__init__(setting)
        if not 1 <= planes <= _BITS:
            raise ValueError(f"planes must be in 1..{_BITS}, got {planes}")
        self.planes, self.then = min(planes, self.num_steps), then
        self.is_deterministic = then == "latency" or self.planes == self.num_steps

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """Return the code [T, B, C, H, W]; ``rate`` draws R B C H W numbers from ``generator``."""
        levels = torch.round(255 * images).clamp(0, 255)
        planes = [torch.floor(levels / 2 ** (_BITS - 1 - t)) % 2 for t in range(self.planes)]
        bits = torch.stack(planes)
        left = self.num_steps - self.planes
        if left == 0:
            return bits
        if self.then == "rate":
            return torch.cat([bits, self._rate(images, left, generator)])
        return torch.cat([bits, self._latency(images, levels, left)])

    def _rate(
        self, images: Float[Tensor, "batch channel height width"], left: int, generator: Generator
    ) -> Float[Tensor, "rest batch channel height width"]:
        shape = (left, *images.shape)
        draws = torch.rand(shape, generator=generator, device=images.device, dtype=images.dtype)
        return (draws < images).to(images.dtype)

    def _latency(
        self,
        images: Float[Tensor, "batch channel height width"],
        levels: Float[Tensor, "batch channel height width"],
        left: int,
    ) -> Float[Tensor, "rest batch channel height width"]:
        fire_at = torch.round((left - 1) * (1 - images))
        steps = torch.arange(left, device=images.device).reshape(-1, 1, 1, 1, 1)
        return ((fire_at == steps) & (levels > 0)).to(images.dtype)
