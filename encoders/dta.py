"""Dual temporal-channel attention: direct coding's spikes, scaled by a gate of two attentions.

Source: "DTA: Dual Temporal-channel-wise Attention for Spiking Neural Networks", WACV 2025 (code:
github.com/biswadeep20666/DTA-SNN), the successor of GAC on its backbone and recipe, built to the
order of operations of that code. It claims 96.73 % on CIFAR-10 and 81.16 % on CIFAR-100 at T = 6
(figures taken second-hand). Measured here at T = 4 after four epochs on 9,000 images of CIFAR-100:
13.25 ± 0.51 %, with 12.89 ± 0.18 for direct coding and 12.56 ± 0.10 for GAC (results/README.md).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from codingbench.encoder import FeatureEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("dta")
class DTAEncoder(FeatureEncoder):
    """code[t] = LIF(y)[t] * sigmoid(TNA(y)[t] * TXA(y)[t]),  y = stem(image), the same at every t:

        TXA(y) = (y + a_time) (y + a_channel)
        a_time = alpha sigmoid(conv over 3 channels, from T to T steps, of mean(y))
        a_channel = beta sigmoid(conv over 6 steps, from C to C channels, of mean(y))
        TNA(y) = x + W4 TCA(GELU(W1 x)),  x = y for all steps as T C channels
        TCA(u) = MLP(mean(u)) * L(u) * u,  L = W3 d1 d5

    means run over positions, mean(y) has the shape [T, C]. W are 1 x 1 convolutions of T C
    channels, d5 and d1 depthwise convolutions of 5 x 5 and 1 x 1, all with biases; MLP has
    T C // max(T C // 16, 4) hidden units, at least 1. alpha and beta are learned numbers. As x
    repeats y, W1 is applied to y with the sum of its weights over the steps, which gives the same
    result for 1 / T of the work. The code is real where a spike is, zero elsewhere.
    """

    emits = "graded"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        num_steps, channels = self.num_steps, setting.stem_channels
        wide = num_steps * channels
        hidden = max(1, wide // max(wide // 16, 4))
        self.neuron = setting.make_neuron()
        self.over_channels = nn.Conv1d(num_steps, num_steps, 3, padding=1, bias=False)
        self.over_steps = nn.Conv1d(channels, channels, 6, bias=False)
        self.alpha, self.beta = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
        self.first = nn.Conv2d(wide, wide, 1)
        self.local = nn.Sequential(
            nn.Conv2d(wide, wide, 5, padding=2, groups=wide),
            nn.Conv2d(wide, wide, 1, groups=wide),
            nn.Conv2d(wide, wide, 1),
        )
        self.mlp = nn.Sequential(
            nn.Linear(wide, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, wide, bias=False)
        )
        self.last = nn.Conv2d(wide, wide, 1)

    def encode(
        self, features: Float[Tensor, "batch stem rows columns"]
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Return the gated spikes."""
        spk: Tensor = self.neuron(features.expand(self.num_steps, *features.shape))
        attention = self._identical(features) * self._exchanged(features)
        return spk * torch.sigmoid(attention.transpose(0, 1))

    def _exchanged(
        self, y: Float[Tensor, "batch stem rows columns"]
    ) -> Float[Tensor, "batch time stem rows columns"]:
        """Return TXA."""
        mean = y.mean((2, 3)).unsqueeze(1).expand(-1, self.num_steps, -1)  # (batch, time, stem)
        steps = self.alpha * torch.sigmoid(self.over_channels(mean))
        padded = F.pad(mean.transpose(1, 2), (2, 3))  # one more after, as padding="same" does
        channels = self.beta * torch.sigmoid(self.over_steps(padded)).transpose(1, 2)
        wide = y.unsqueeze(1)
        exchanged: Tensor = (wide + steps[..., None, None]) * (wide + channels[..., None, None])
        return exchanged

    def _identical(
        self, y: Float[Tensor, "batch stem rows columns"]
    ) -> Float[Tensor, "batch time stem rows columns"]:
        """Return TNA."""
        weight = self.first.weight.unflatten(1, (self.num_steps, -1)).sum(1)
        u = F.gelu(F.conv2d(y, weight, self.first.bias))
        attended = self.mlp(u.mean((2, 3)))[:, :, None, None] * self.local(u) * u
        added: Tensor = self.last(attended).unflatten(1, (self.num_steps, -1))
        return y.unsqueeze(1) + added
