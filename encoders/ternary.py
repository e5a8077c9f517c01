"""Ternary spikes: direct coding whose neurons also report a current below zero.

Source: Guo et al., "Ternary Spike: Learning Ternary Spikes for Spiking Neural Networks", AAAI 2024
(arXiv 2312.06372; code: github.com/yfguo91/Ternary-Spike). The paper also learns the spikes'
amplitude, which is merged into the weights of the next layer after training. Published figures
were not at hand.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from codingbench.encoder import FeatureEncoder, Setting
from codingbench.neurons import MultiStepLeaky
from codingbench.registry import register_encoder
from codingbench.surrogates import triangle


@register_encoder("ternary")
class TernaryEncoder(FeatureEncoder):
    """spk[t] = sign(v[t]) where |v[t]| > threshold, else 0;  v[t] = beta h[t-1] + stem(image).

    h = v (1 - |spk|) is the membrane after reset, 0 at first. The derivative of a spike is the
    triangle max(0, 1 - ||v| - threshold|) around either threshold, and passes through the reset.

    Args:
        beta: decay of the membrane per step; in [0, 1].
        threshold: positive.
        learned_amplitude: true: the backbone receives a spk, where a is a learned number, 1 at
            first. It is priced as executed: a layer that reads a spk multiplies.

    Raises:
        ValueError: beta or threshold is outside its range.
    """

    emits = "signed"

    def __init__(
        self,
        setting: Setting,
        *,
        beta: float = 0.5,
        threshold: float = 1.0,
        learned_amplitude: bool = False,
    ) -> None:
        super().__init__(setting)
        self.neuron = TernaryNeuron(beta, threshold)
        self.amplitude = nn.Parameter(torch.ones(1)) if learned_amplitude else None

    def encode(
        self, features: Float[Tensor, "batch stem rows columns"]
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Return the spikes."""
        spk: Tensor = self.neuron(features.expand(self.num_steps, *features.shape))
        return spk

    def forward(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Return the spikes, scaled by the amplitude if it is learned."""
        spk = super().forward(images, generator)
        return spk if self.amplitude is None else self.amplitude * spk


class TernaryNeuron(MultiStepLeaky):
    """A leaky neuron with spikes of either sign and a reset to 0: currents [T, ...] to spikes."""

    def __init__(self, beta: float, threshold: float) -> None:
        super().__init__(beta, threshold)
        self.is_fused = False  # no kernel computes this recurrence

    def forward(
        self, cur: Float[Tensor, "time batch *feature"]
    ) -> Float[Tensor, "time batch *feature"]:
        """Return the spikes of all steps, from zero membrane."""
        kept, spk = torch.zeros_like(cur[0]), []
        for step in cur:
            mem = self.beta * kept + step
            up, down = (triangle(side - self.threshold) for side in (mem, -mem))
            spk.append(up - down)
            kept = mem * (1 - up - down)
        return torch.stack(spk)
