"""Latency coding: the brighter a pixel, the earlier its first spike; time-to-first-spike coding.

Sources: Thorpe, Delorme & Van Rullen, "Spike-based strategies for rapid processing", Neural
Networks 14 (2001); the log scale is the latency encoder's that the official code of GAC carries
(arXiv 2308.06582); the exponential scale, with a receiver of the same kernel, is T2FSNN's (Park,
Kim, Na & Yoon, DAC 2020, arXiv 2003.11741). The linear code has the spikes of
snntorch.spikegen.latency with ``linear=True, normalize=True, clip=True``. All depend on the pixel
alone, never on its batch.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from codingbench.encoder import PixelEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("latency")
class LatencyEncoder(PixelEncoder):
    """A pixel of intensity x spikes first, counting steps from 0, at

        linear:       round((T - 1) (1 - x))
        log:          round((T - 1) - ln(a x + 1)),  a = e^(T - 1) - 1
        exponential:  the first t with x >= e^(-t / tau); a pixel that none reaches never spikes

    Args:
        scale: ``linear``, ``log`` or ``exponential``.
        threshold: pixels darker than this never spike. In [0, 1).
        tau: of the exponential scale, in steps; positive.
        sustained: true: from the first spike on a pixel spikes at every step; false: only once.
        weighted: true: the receiver knows what a time says, and the current of step t is
            ``worth[t] stem(spk[t])`` with the intensity that the scale has at t:
            ``1 - t / (T - 1)``, ``(e^(T - 1 - t) - 1) / a`` or ``e^(-t / tau)``; on hardware a
            change of the synapses' weights over time. At T = 1 it is 1.

    Raises:
        ValueError: threshold outside [0, 1), or tau not positive.
    """

    emits = "binary"

    def __init__(
        self,
        setting: Setting,
        *,
        scale: Literal["linear", "log", "exponential"] = "linear",
        threshold: float = 0.01,
        tau: float = 1.0,
        sustained: bool = False,
        weighted: bool = False,
    ) -> None:
        super().__init__(setting)
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), got {threshold}")
        if not tau > 0:
            raise ValueError(f"tau must be positive, got {tau}")
        self.scale, self.threshold, self.tau, self.sustained = scale, threshold, tau, sustained
        if weighted:
            self.weigh([self._intensity(t) for t in range(self.num_steps)])

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """Return spikes [T, B, C, H, W] of images [B, C, H, W]; ``generator`` is not used."""
        fire_at = self._fire_at(images)
        steps = torch.arange(self.num_steps, device=images.device).reshape(-1, 1, 1, 1, 1)
        is_due = fire_at <= steps if self.sustained else fire_at == steps
        return (is_due & (images >= self.threshold)).to(images.dtype)

    def _fire_at(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        last = self.num_steps - 1
        if self.scale == "linear":
            return torch.round(last * (1 - images))
        if self.scale == "log":
            return torch.round(last - torch.log(math.expm1(last) * images + 1))
        return torch.ceil(-self.tau * torch.log(images))

    def _intensity(self, t: int) -> float:
        """Return the intensity of a pixel that spikes at t, before rounding."""
        last = self.num_steps - 1
        if last == 0:
            return 1.0
        if self.scale == "linear":
            return 1 - t / last
        if self.scale == "log":
            return math.expm1(last - t) / math.expm1(last)
        return math.exp(-t / self.tau)
