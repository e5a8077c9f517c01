"""Delta coding: a spike for every change of brightness by a threshold, as event cameras send.

Source: send-on-delta sampling as of Lichtsteiner, Posch & Delbruck, "A 128x128 120 dB 15 us latency
asynchronous temporal contrast vision sensor", IEEE J. Solid-State Circuits 43 (2008), on
intensities instead of their logarithms. snntorch.spikegen.delta has the same spikes on the
staircase that this code follows.

A still image changes once, when it appears; the changes of this code are those of a pixel that goes
from the background to the image as fast as one event per step allows.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from codingbench.encoder import PixelEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("delta")
class DeltaEncoder(PixelEncoder):
    """spk[t] = sign(x - y[t]) where |x - y[t]| >= threshold;  y[t + 1] = y[t] + threshold spk[t].

    y[0] = background, t counted from 0: every pixel spikes at the first steps until it is reached.

    Args:
        threshold: change of intensity per spike; in (0, 1].
        background: intensity before the image; in [0, 1]. From 0 on spikes are positive only.

    Raises:
        ValueError: threshold or background outside its range.
    """

    def __init__(
        self, setting: Setting, *, threshold: float = 0.2, background: float = 0.0
    ) -> None:
        super().__init__(setting)
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1], got {threshold}")
        if not 0 <= background <= 1:
            raise ValueError(f"background must be in [0, 1], got {background}")
        self.threshold, self.background = threshold, background
        self.emits = "signed" if background >= threshold else "binary"

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """Deterministic: ``generator`` is not used."""
        change = images - self.background
        # half a grey level of 255 of tolerance, or rounding would lose a spike at the threshold
        count = torch.floor((change.abs() + 0.5 / 255) / self.threshold)
        steps = torch.arange(self.num_steps, device=images.device).reshape(-1, 1, 1, 1, 1)
        return change.sign() * (steps < count)
