"""Frequency coding: the image at every step, with less and less of its high frequencies.

Source: FEEL-SNN (NeurIPS 2024), its frequency encoding: low-pass filters whose radius shrinks over
the time steps, 16, 14, 12, 10 at T = 4 on CIFAR. Our reading: radii are distances in the Fourier
plane of 32 x 32 pixels, 0.5 to 0.3125 of the sampling rate, and the stem sees the filtered image.
"""

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from codingbench.encoder import PixelEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("lowpass")
class LowpassEncoder(PixelEncoder):
    """code[t] = the part of z = (x - mean) / std whose spatial frequencies are at most r[t].

    Frequencies are distances from 0 in the Fourier plane, in units of the image's sampling rate:
    0.5 is the highest along an axis. r falls evenly from ``first`` to ``last`` over the steps. The
    code is real: the stem multiplies at every step.

    Args:
        first: r at the first step. In (0, 1].
        last: r at the last step. In (0, first].

    Raises:
        ValueError: not 0 < last <= first <= 1.
    """

    emits = "real"
    mean: Tensor
    std: Tensor
    masks: Tensor

    def __init__(self, setting: Setting, *, first: float = 0.5, last: float = 0.3125) -> None:
        super().__init__(setting)
        if not 0 < last <= first <= 1:
            raise ValueError(f"expected 0 < last <= first <= 1, got {last} and {first}")
        task, shape = setting.task, (1, -1, 1, 1)
        self.register_buffer("mean", torch.tensor(task.mean).reshape(shape), False)
        self.register_buffer("std", torch.tensor(task.std).reshape(shape), False)
        masks = _disks(task.height, task.width, torch.linspace(first, last, self.num_steps))
        self.register_buffer("masks", masks, False)

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """Return the filtered images [T, B, C, H, W]; ``generator`` is not used."""
        z = ((images - self.mean) / self.std).float()
        low = torch.fft.rfft2(z) * self.masks[:, None, None]
        code: Tensor = torch.fft.irfft2(low, s=images.shape[2:])
        return code.to(images.dtype)


def _disks(
    height: int, width: int, radii: Float[Tensor, " time"]
) -> Bool[Tensor, "time row column"]:
    """Return a mask for each step: true where a frequency, in the order of ``rfft2``, passes."""
    rows, columns = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    distance = torch.hypot(rows[:, None], columns[None])
    return distance <= radii[:, None, None] + 1e-6
