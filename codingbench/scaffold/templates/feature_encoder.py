"""my_coding: direct coding with a learned gain and offset for every step and channel.

A constant current makes a neuron repeat itself; here the current differs between steps.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codingbench.encoder import FeatureEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("my_coding")
class MyCoding(FeatureEncoder):
    """code = LIF(gain[t] y + offset[t]) with y = stem(image), and learned gain and offset.

    With gain 1 and offset 0 at every step this is direct coding.

    Args:
        spread: initial range of the gains, in [0, 1]. They rise evenly from step to step, between
            1 - spread and 1 + spread, and their mean is 1.

    Raises:
        ValueError: spread is outside [0, 1].
    """

    emits = "binary"

    def __init__(self, setting: Setting, *, spread: float = 0.5) -> None:
        super().__init__(setting)
        if not 0 <= spread <= 1:
            raise ValueError(f"spread must be in [0, 1], got {spread}")
        num_steps = self.num_steps
        position = (2 * torch.arange(num_steps) + 1) / num_steps - 1  # in (-1, 1), 0 if T = 1
        shape = (num_steps, 1, setting.stem_channels, 1, 1)
        gain = (1 + spread * position).reshape(-1, 1, 1, 1, 1).expand(shape)
        self.gain = nn.Parameter(gain.clone())
        self.offset = nn.Parameter(torch.zeros(shape))
        self.neuron = setting.make_neuron()

    def encode(
        self, features: Float[Tensor, "batch stem rows columns"]
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Return the spikes of the neuron for every step."""
        spk: Tensor = self.neuron(self.gain * features + self.offset)
        return spk
