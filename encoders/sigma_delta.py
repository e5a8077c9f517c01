"""Sigma-delta coding: a pixel sends how many levels it has moved from what the receiver knows.

Source: the textbook send-on-delta modulator with graded spikes, as Intel's Loihi 2 runs it (Lava's
sigma-delta neurons; Shrestha et al., "Efficient video and audio processing with Loihi 2", ICASSP
2024, arXiv 2310.03251). It says something only of inputs that change: a still image is sent once,
at the first step, and every later step is silent.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from codingbench.encoder import PixelEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("sigma_delta")
class SigmaDeltaEncoder(PixelEncoder):
    """spk[t] = round(e / threshold) where |e| >= threshold, else 0;  e = x[t] - r.

    r is what the receiver knows, 0 at first; after every step it is r + threshold spk[t]. Spikes
    are graded: whole numbers, which are positive for still images.

    Args:
        threshold: size of a level; in (0, 1].

    Raises:
        ValueError: threshold is outside its range.
    """

    emits = "graded"

    def __init__(self, setting: Setting, *, threshold: float = 0.1) -> None:
        super().__init__(setting)
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1], got {threshold}")
        self.threshold = threshold
        if threshold == 1:
            self.emits = "binary"  # type: ignore[assignment]

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """Return the spikes; ``generator`` is not used."""
        return self.of_frames(images.expand(self.num_steps, *images.shape))

    def of_frames(
        self, frames: Float[Tensor, "time batch channel height width"]
    ) -> Float[Tensor, "time batch channel height width"]:
        """Return the spikes for an input that may be another at every step."""
        known, spk = torch.zeros_like(frames[0]), []
        for frame in frames:
            error = frame - known
            moved = torch.round(error / self.threshold)
            spk.append(moved * (error.abs() >= self.threshold))
            known = known + self.threshold * spk[-1]
        return torch.stack(spk)
