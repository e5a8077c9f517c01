"""Learned temporal code: every channel learns when it is driven.

Source: codingbench. Like the learned temporal encoding of arXiv 2512.01687, which learns a phase
shift per channel, it gives a still image a course over time at the price of a few numbers per
channel; here these numbers are the course itself.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codingbench.encoder import FeatureEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("learned_time")
class LearnedTimeEncoder(FeatureEncoder):
    """code[t] = LIF(w[t, c] y[c])[t],  y = stem(image), c its channel; w is learned, 1 at first.

    It begins as direct coding. A current that varies over the steps can make any of the 2^T spike
    patterns, a constant one T + 1. T x S parameters for S channels; one multiplication per value
    and step.
    """

    emits = "binary"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.neuron = setting.make_neuron()
        self.course = nn.Parameter(torch.ones(self.num_steps, 1, setting.stem_channels, 1, 1))

    def encode(
        self, features: Float[Tensor, "batch stem rows columns"]
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Return spikes [T, B, S, H', W'], with the learned weight of each channel and step."""
        spk: Tensor = self.neuron(self.course * features)
        return spk
