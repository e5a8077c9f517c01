"""Complementary leaky integrate-and-fire neuron (CLIF): recent spikes deepen the reset.

Source: Huang et al., "CLIF: Complementary Leaky Integrate-and-Fire Neuron for Spiking Neural
Networks", ICML 2024 (arXiv 2402.04663), and its code, ``HuuYuLong/Complementary-LIF``.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from codingbench.neurons.neuron import Neuron
from codingbench.neurons.surrogates import rectangle
from codingbench.registry import register_neuron


@register_neuron("clif")
class Clif(Neuron):
    """A leaky neuron with a complementary potential m, which follows its spikes.

        u[t] = (1 - 1 / tau) h[t-1] + cur[t],   spk[t] = 1 where u[t] > threshold
        m[t] = m[t-1] sigmoid(u[t] / tau) + spk[t]
        h[t] = u[t] - spk[t] (threshold + sigmoid(m[t]))

    The gradient passes the reset and m. The surrogate is the rectangle of width 1. The steps run
    one by one: no kernel computes this recurrence.

    Args:
        tau: time constant in steps, at least 1.
        threshold: positive.

    Raises:
        ValueError: a parameter is outside its range.
    """

    def __init__(self, *, tau: float = 2.0, threshold: float = 1.0) -> None:
        super().__init__()
        if tau < 1:
            raise ValueError(f"tau must be at least 1, got {tau}")
        if threshold <= 0:
            raise ValueError(f"threshold must be positive, got {threshold}")
        self.tau, self.threshold = tau, threshold

    def forward(
        self, cur: Float[Tensor, "time batch *feature"]
    ) -> Float[Tensor, "time batch *feature"]:
        """Return the spikes of all steps, from zero potentials."""
        wide = cur.to(torch.promote_types(cur.dtype, torch.float32))
        kept, m = torch.zeros_like(wide[0]), torch.zeros_like(wide[0])
        train = []
        for step in wide:
            mem = (1 - 1 / self.tau) * kept + step
            spk = rectangle(mem - self.threshold)
            m = m * torch.sigmoid(mem / self.tau) + spk
            kept = mem - spk * (self.threshold + torch.sigmoid(m))
            train.append(spk)
        return torch.stack(train).to(cur.dtype)
