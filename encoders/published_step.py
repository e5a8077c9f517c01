"""STEP's rate, time-to-first-spike and phase coding as published, faults included.

Source: the encoders of BrainCog (braincog/base/encoder/encoder.py), which STEP, a benchmark of
spiking transformers (NeurIPS 2025, github.com/Fancyssc/STEP), compares with direct coding in the
"Encoding Test" of cls/Results.md; mean and standard deviation of CIFAR-10 from its
cls/configs/spikformer/cifar10.yml.

STEP reports that direct coding is better than these by 10 to 13 points. This reproduction measures
how much of that is due to the code and how much to the encoder. ``rate``, ``latency`` and ``phase``
are the codes as they are defined.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from codingbench.encoder import PixelEncoder, Setting
from codingbench.registry import register_encoder

MEAN = (0.4914, 0.4822, 0.4465)  # CIFAR-10 in STEP's configuration, red, green, blue
STD = (0.2470, 0.2435, 0.2616)


@register_encoder("published_step")
class PublishedStepEncoder(PixelEncoder):
    """Rate, time-to-first-spike and phase coding of standardised pixels z = (x - mean) / std.

        rate:   spk[t] = 1 where z > a uniform number in [0, 1)
        ttfs:   spk[t] = 1 / (t + 1) where T - t - 1 < T z <= T - t, t counted from 0
        phase:  spk[t] = 2^-(t mod 8) where bit 7 - (t mod 8) of the integer part of 256 z is 1

    Faults, each of which ``tests/test_encoders.py`` shows:

    - The codes are made for pixels in [0, 1] and get standardised ones. About half of these are
      negative, and others exceed 1. In ``rate`` and ``ttfs`` every pixel that is not brighter than
      the mean is silent.
    - ``rate``: a pixel that is one standard deviation brighter than the mean, or more, spikes at
      every step.
    - ``ttfs``: a pixel that is brighter than that, among the brightest of the image, is silent.
    - ``ttfs``: spikes are graded by their time, 1 to 1 / T, so that they are not binary.
    - ``phase``: z = 1 is 256, whose eight low bits are 0, and silent; so is z = 2. Negative values
      wrap: -1 / 4 has the code of 3 / 4.
    - ``phase``: spikes are graded by their digit, 1 to 1 / 128, so that they are not binary.

    Args:
        code: ``rate``, ``ttfs`` or ``phase``.
        pixels: ``published``: standardised by the mean and standard deviation of CIFAR-10 that STEP
            states, 0.4914, 0.4822, 0.4465 and 0.2470, 0.2435, 0.2616. For images that are not RGB,
            of which STEP has none, and with ``standardised``: by those of the training images.
            ``unit``: not standardised, which leaves the other faults alone.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        setting: Setting,
        *,
        code: Literal["rate", "ttfs", "phase"] = "rate",
        pixels: Literal["published", "standardised", "unit"] = "published",
    ) -> None:
        super().__init__(setting)
        self.make = {"rate": self._rate, "ttfs": self._ttfs, "phase": self._phase}[code]
        self.emits = "binary" if code == "rate" or self.num_steps == 1 else "graded"
        self.is_deterministic = code != "rate"
        mean, std = _statistics(setting, pixels)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), False)
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1), False)

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """Return the code [T, B, C, H, W]; only ``rate`` draws from ``generator``."""
        return self.make((images - self.mean) / self.std, generator)

    def _rate(
        self, z: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        shape = (self.num_steps, *z.shape)
        draws = torch.rand(shape, generator=generator, device=z.device, dtype=z.dtype)
        return (z > draws).to(z.dtype)

    def _ttfs(
        self, z: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        scaled = z * self.num_steps
        spk = []
        for t in range(self.num_steps):
            left = self.num_steps - t
            is_due = (scaled <= left) & (scaled > left - 1)
            spk.append(is_due.to(z.dtype) / (t + 1))
        return torch.stack(spk)

    def _phase(
        self, z: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        digits = (z * 256).long()  # towards 0; negative numbers in two's complement
        places = [t % 8 for t in range(self.num_steps)]
        spk = [((digits >> (7 - place)) & 1).to(z.dtype) / 2**place for place in places]
        return torch.stack(spk)


def _statistics(
    setting: Setting, pixels: Literal["published", "standardised", "unit"]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel."""
    task = setting.task
    if pixels == "unit":
        return (0.0,) * task.channels, (1.0,) * task.channels
    if pixels == "published" and task.channels == len(MEAN):
        return MEAN, STD
    return task.mean, task.std
