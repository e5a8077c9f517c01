"""Gated Attention Coding: direct coding's spikes, each scaled by a learned gate.

Source: Qiu et al., "Gated Attention Coding for Training High-performance and Efficient Spiking
Neural Networks", arXiv 2308.06582 (AAAI 2024); built to the order of operations of the official
code, where both attentions see the stem's output and the only sigmoid is the gate's.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codingbench.encoder import FeatureEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("gac")
class GACEncoder(FeatureEncoder):
    """code[t] = LIF(y)[t] * sigmoid(TA(y)[t] * SCA(y)),  y = stem(image):

        TA(y)  = W2 ReLU(W1 mean(y)) + W2 ReLU(W1 max(y))      T numbers per image
        SCA(y) = conv_K(ReLU(conv_K(y)))                       a map of y's shape

    mean and max run over channels and positions; W1 takes T copies of them (the image is constant)
    to ``max(1, T // reduction)`` hidden units, so at T = 1, where the official code has no hidden
    unit at all and fails, the hidden width is 1. As y is the same at every step, TA and SCA run
    once per image, not T times; the outputs are those of the official form. The code is real-valued
    where a spike is, zero elsewhere. Neither convolution has a bias.

    Args:
        kernel_size: K; padded to the same size. An even K pads one more at the right and bottom, as
            the official 4 does.
        reduction: of the temporal hidden layer.
        channel_reduction: of the channels between the two convolutions; the official code has 1.

    Raises:
        ValueError: a parameter is not positive, or channel_reduction exceeds the stem's channels.
    """

    emits = "graded"

    def __init__(
        self,
        setting: Setting,
        *,
        kernel_size: int = 4,
        reduction: int = 2,
        channel_reduction: int = 1,
    ) -> None:
        super().__init__(setting)
        channels, num_steps = setting.stem_channels, self.num_steps
        if kernel_size < 1 or reduction < 1:
            raise ValueError(
                f"kernel_size and reduction must be at least 1, got {kernel_size} and {reduction}"
            )
        if not 1 <= channel_reduction <= channels:
            raise ValueError(
                f"channel_reduction must be in 1..{channels}, the stem's channels, "
                f"got {channel_reduction}"
            )
        hidden, inner = max(1, num_steps // reduction), channels // channel_reduction
        self.neuron = setting.make_neuron()
        self.temporal = nn.Sequential(
            nn.Linear(num_steps, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, num_steps, bias=False),
        )
        before, after = (kernel_size - 1) // 2, kernel_size // 2
        self.spatial = nn.Sequential(
            nn.ZeroPad2d((before, after, before, after)),
            nn.Conv2d(channels, inner, kernel_size, bias=False),
            nn.ReLU(),
            nn.ZeroPad2d((before, after, before, after)),
            nn.Conv2d(inner, channels, kernel_size, bias=False),
        )

    def gate(
        self, features: Float[Tensor, "batch stem rows columns"]
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Return sigmoid(TA * SCA), in (0, 1), of shape [T, B, S, H', W']."""
        pooled = torch.stack([features.mean((1, 2, 3)), features.amax((1, 2, 3))], dim=1)
        over_steps = pooled.unsqueeze(2).expand(-1, -1, self.num_steps)  # (batch, mean|max, time)
        temporal = self.temporal(over_steps).sum(1).T  # (time, batch)
        return torch.sigmoid(temporal[:, :, None, None, None] * self.spatial(features))

    def encode(
        self, features: Float[Tensor, "batch stem rows columns"]
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Return the gated spikes [T, B, S, H', W']."""
        spk = self.neuron(features.expand(self.num_steps, *features.shape))
        gated: Tensor = spk * self.gate(features)
        return gated
