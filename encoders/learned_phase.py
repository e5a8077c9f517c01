"""Learned phase: every channel sees the image through a wave with a phase of its own.

Source: arXiv 2512.01687, which learns a phase shift per channel; its formula is taken second-hand,
and published figures were not at hand. Its p is a number at every step. Here neurons turn p into
spikes, as in ``direct``.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codingbench.encoder import FeatureEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("learned_phase")
class LearnedPhaseEncoder(FeatureEncoder):
    """code = LIF(gain p),  p[t] = sigmoid(y sin(2 pi t / period + phi[c])),  y = stem(image).

    c is the channel. phi is learned, one number per channel. At first the phases are spread evenly:
    phi[c] = 2 pi (c + 1/2) / S for S channels. t is counted from 0. One multiplication per value
    and step.

    Args:
        period: of the wave in steps; 0 means T.
        gain: current of p = 1; positive. With 2 and a threshold of 1, a p above 1/2 spikes at once.
        spiking: false emits p itself, which is real.

    Raises:
        ValueError: period is negative, or gain is not positive.
    """

    angles: Tensor

    def __init__(
        self, setting: Setting, *, period: float = 0.0, gain: float = 2.0, spiking: bool = True
    ) -> None:
        super().__init__(setting)
        if not period >= 0:
            raise ValueError(f"period must be at least 0, got {period}")
        if not gain > 0:
            raise ValueError(f"gain must be positive, got {gain}")
        self.gain = gain if spiking else 1.0
        self.emits = "binary" if spiking else "real"
        self.neuron = setting.make_neuron() if spiking else nn.Identity()
        turns = torch.arange(self.num_steps) / (period or self.num_steps)
        self.register_buffer("angles", 2 * math.pi * turns.reshape(-1, 1, 1, 1, 1), False)
        phases = (torch.arange(setting.stem_channels) + 0.5) / setting.stem_channels
        self.phase = nn.Parameter(2 * math.pi * phases)

    def encode(
        self, features: Float[Tensor, "batch stem rows columns"]
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Return the spikes, or p."""
        wave = torch.sin(self.angles + self.phase.reshape(-1, 1, 1))
        code: Tensor = self.neuron(self.gain * torch.sigmoid(wave * features))
        return code
