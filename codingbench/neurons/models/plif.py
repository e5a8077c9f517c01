"""Parametric leaky integrate-and-fire neuron (PLIF): each layer learns its time constant.

Source: Fang, Yu, Chen, Masquelier, Huang & Tian, "Incorporating Learnable Membrane Time Constant to
Enhance Learning of Spiking Neural Networks", ICCV 2021 (arXiv 2007.05785): SpikingJelly's
``ParametricLIFNode`` with ``decay_input=True``, the surrogate ``ATan()`` and a detached reset.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codingbench.neurons.leaky import leaky_steps
from codingbench.neurons.neuron import Neuron
from codingbench.neurons.recurrence import Rule
from codingbench.neurons.surrogates import Slope, atan_slope
from codingbench.registry import register_neuron


@register_neuron("plif")
class Plif(Neuron):
    """u[t] = h[t-1] + k (cur[t] - h[t-1]),  k = 1 / tau = sigmoid(w),  w learnt,  reset to 0.

    A spike where u exceeds the threshold. (SpikingJelly's neuron also spikes where they are equal.)

    Args:
        tau: the first time constant in steps, above 1.
        threshold: positive.
        slope: alpha of the surrogate, alpha / 2 / (1 + (pi alpha (u - threshold) / 2)^2); positive.
        detach_reset: the gradient does not see the reset.

    Raises:
        ValueError: a parameter is outside its range.
    """

    def __init__(
        self,
        *,
        tau: float = 2.0,
        threshold: float = 1.0,
        slope: float = 2.0,
        detach_reset: bool = True,
    ) -> None:
        super().__init__()
        if tau <= 1:
            raise ValueError(f"tau must be above 1, got {tau}")
        if threshold <= 0 or slope <= 0:
            raise ValueError(f"threshold and slope must be positive, got {threshold} and {slope}")
        self.w = nn.Parameter(torch.tensor(-math.log(tau - 1)))
        self.threshold = threshold
        self._rule = Rule("zero", detach_reset, Slope(atan_slope, (("alpha", slope),)), True)

    def forward(
        self, cur: Float[Tensor, "time batch *feature"]
    ) -> Float[Tensor, "time batch *feature"]:
        """Return the spikes of all steps, from zero membrane."""
        share = torch.sigmoid(self.w)
        return leaky_steps(cur * share, 1 - share, share.new_tensor(self.threshold), self._rule)
