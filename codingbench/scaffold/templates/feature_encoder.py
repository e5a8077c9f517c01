"""my_coding: direct coding with a learned gain and offset for every step and channel.

A neuron under a constant current repeats itself; here the current differs from step to step.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codingbench.encoder import FeatureEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("my_coding")
class MyCoding(FeatureEncoder):
    """code[t] = LIF(gain[t] y + offset[t]),  y = stem(image), gain and offset learned per channel.

    Gain 1 and offset 0 at every step is direct coding.

    Args:
        spread: the gains start evenly spaced between 1 - spread and 1 + spread, the lowest at the
            first step; their mean over the steps is 1. In [0, 1].

    Raises:
        ValueError: spread outside [0, 1].
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
        """The neuron's spikes under a current that changes from step to step."""
        spk: Tensor = self.neuron(self.gain * features + self.offset)
        return spk
