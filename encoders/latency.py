"""Latency coding: one spike per pixel, the brighter the earlier.

Source: Thorpe, Delorme & Van Rullen, "Spike-based strategies for rapid processing", Neural
Networks 14 (2001); the log scale is the latency encoder's that the official code of GAC carries
(arXiv 2308.06582). The linear code has the spikes of snntorch.spikegen.latency with
``linear=True, normalize=True, clip=True``. Both depend on the pixel alone, never on its batch.
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
    """A pixel of intensity x spikes once, counting steps from 0, at

        linear:  round((T - 1) (1 - x))
        log:     round((T - 1) - ln(a x + 1)),  a = e^(T - 1) - 1

    The log code maps most intensities to the first step when T is small.

    Args:
        scale: ``linear`` or ``log``.
        threshold: pixels darker than this never spike. In [0, 1).

    Raises:
        ValueError: threshold outside [0, 1).
    """

    emits = "binary"

    def __init__(
        self,
        setting: Setting,
        *,
        scale: Literal["linear", "log"] = "linear",
        threshold: float = 0.01,
    ) -> None:
        super().__init__(setting)
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), got {threshold}")
        self.scale = scale
        self.threshold = threshold

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """Deterministic: ``generator`` is not used."""
        last = self.num_steps - 1
        if self.scale == "linear":
            fire_at = torch.round(last * (1 - images))
        else:
            fire_at = torch.round(last - torch.log(math.expm1(last) * images + 1))
        steps = torch.arange(self.num_steps, device=images.device).reshape(-1, 1, 1, 1, 1)
        return ((fire_at == steps) & (images >= self.threshold)).to(images.dtype)
