"""Leaky integrate-and-fire neuron of SpikingJelly, which divides its input by tau.

Source: Fang et al., "SpikingJelly: An open-source machine learning infrastructure platform for
spike-based intelligence", Science Advances 9(40), 2023: ``LIFNode(tau, v_threshold,
detach_reset)`` with ``decay_input=True``, as Spikformer and SEW-ResNet use it.
"""

from typing import Literal

from codingbench.neurons import MultiStepLeaky
from codingbench.neurons.neuron import Neuron
from codingbench.neurons.surrogates import named_surrogate
from codingbench.registry import register_neuron


@register_neuron("spikingjelly_lif")
class SpikingJellyLif(MultiStepLeaky, Neuron):
    """u[t] = h[t-1] + (cur[t] - h[t-1]) / tau,  spk[t] = 1 where u[t] > threshold,  reset to 0.

    It is computed on the scale of the input, v = tau u: v[t] = (1 - 1 / tau) v[t-1] + cur[t] with
    the threshold tau x threshold and the surrogate's slope divided by tau. A membrane equal to the
    threshold does not spike here; SpikingJelly's does.

    Args:
        tau: time constant in steps, at least 1.
        threshold: positive, on the scale of u.
        surrogate: ``sigmoid`` or ``atan``.
        slope: of the surrogate on the scale of u; 0 is SpikingJelly's own (sigmoid 4, atan 2).
        detach_reset: the gradient does not see the reset.

    Raises:
        ValueError: a parameter is outside its range.
    """

    def __init__(
        self,
        *,
        tau: float = 2.0,
        threshold: float = 1.0,
        surrogate: Literal["sigmoid", "atan"] = "sigmoid",
        slope: float = 0.0,
        detach_reset: bool = True,
    ) -> None:
        if tau < 1:
            raise ValueError(f"tau must be at least 1, got {tau}")
        if slope < 0:
            raise ValueError(f"slope must not be negative, got {slope}")
        own = slope or {"sigmoid": 4.0, "atan": 2.0}[surrogate]
        super().__init__(
            beta=1 - 1 / tau,
            threshold=tau * threshold,
            spike_grad=named_surrogate(surrogate, own / tau),
            reset_delay=detach_reset,
        )
