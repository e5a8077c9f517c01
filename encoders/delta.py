"""Delta coding: a spike for every change of brightness by a threshold, as event cameras send.

Source: send-on-delta sampling as of Lichtsteiner, Posch & Delbruck, "A 128x128 120 dB 15 us latency
asynchronous temporal contrast vision sensor", IEEE J. Solid-State Circuits 43 (2008), on
intensities instead of their logarithms. snntorch.spikegen.delta has the same spikes on the
staircase that this code follows.

A still image changes once, when it appears; the changes of this code are those of a pixel that goes
from the background to the image as fast as one event per step allows.
"""

from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from codingbench.encoder import PixelEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("delta")
class DeltaEncoder(PixelEncoder):
    """spk[t] = sign(x - y[t]) where |x - y[t]| >= threshold;  y[t + 1] = y[t] + threshold spk[t].

    y[0] = background, t counted from 0: every pixel spikes at the first steps until it is reached.
    The comparisons are exact. Threshold and background are the decimal numbers that were given, and
    a float32 that is the nearest one to a grey level k / 255 stands for that level.

    Args:
        threshold: change of intensity per spike; in (0, 1].
        background: intensity before the image; in [0, 1]. From 0 on spikes are positive only.

    Raises:
        ValueError: threshold or background outside its range.
    """

    bounds: Tensor

    def __init__(
        self, setting: Setting, *, threshold: float = 0.2, background: float = 0.0
    ) -> None:
        super().__init__(setting)
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1], got {threshold}")
        if not 0 <= background <= 1:
            raise ValueError(f"background must be in [0, 1], got {background}")
        bounds = _bounds(Fraction(str(threshold)), Fraction(str(background)), self.num_steps)
        self.register_buffer("bounds", torch.tensor(bounds).reshape(2, -1, 1, 1, 1, 1), False)
        self.emits = "signed" if background >= threshold else "binary"

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """Return spikes [T, B, C, H, W]; ``generator`` is not used."""
        x, (lower, upper) = images.float(), self.bounds
        spk: Tensor = (x >= upper).to(images.dtype) - (x <= lower).to(images.dtype)
        return spk


def _bounds(threshold: Fraction, background: Fraction, num_steps: int) -> list[list[float]]:
    """Return the largest float32 with a negative spike, and the least with a positive, by step."""
    steps = range(1, num_steps + 1)
    # x <= b is -x >= -b, and negation loses no digit
    lower = [-_least_float(n * threshold - background) for n in steps]
    return [lower, [_least_float(background + n * threshold) for n in steps]]


def _least_float(bound: Fraction) -> float:
    """Return the least float32 that stands for a number of at least ``bound``."""
    nearest = torch.tensor(float(bound), dtype=torch.float32)
    ends = torch.tensor([-torch.inf, torch.inf])
    before, after = torch.nextafter(nearest, ends).tolist()
    candidates = (before, nearest.item(), after)
    return next(x for x in candidates if _meaning(x) >= bound)


def _meaning(x: float) -> Fraction:
    """Return the grey level whose nearest float32 is ``x``, or else ``x`` itself."""
    level = Fraction(round(255 * x), 255)
    is_level = torch.tensor(float(level), dtype=torch.float32).item() == x
    return level if is_level else Fraction(x)
