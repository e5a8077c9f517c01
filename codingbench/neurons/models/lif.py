"""Leaky integrate-and-fire neuron with every reset and surrogate, fixed or learnt parameters.

Source: Eshraghian et al., "Training Spiking Neural Networks Using Lessons From Deep Learning",
Proceedings of the IEEE 111(9), 2023 (arXiv 2109.12894): the neuron ``Leaky`` of snntorch. The
defaults are GAC's neuron (Qiu et al., AAAI 2024, arXiv 2308.06582).
"""

from typing import Literal

from codingbench.neurons import MultiStepLeaky
from codingbench.neurons.neuron import Neuron
from codingbench.neurons.surrogates import SurrogateName, named_surrogate
from codingbench.registry import register_neuron


@register_neuron("lif")
class Lif(MultiStepLeaky, Neuron):
    """v[t] = beta h[t-1] + cur[t],  spk[t] = 1 where v[t] > threshold,  h[t] = v[t] after reset.

    Args:
        beta: decay of the membrane per step, in [0, 1].
        threshold: positive; the membrane must exceed it.
        reset: ``zero`` sets h = 0 after a spike, ``subtract`` h = v - threshold, ``none`` h = v.
        reset_delay: the reset follows one step after the spike, as is snntorch's default, and the
            gradient does not see it. Otherwise it follows at once, and the gradient passes it.
        learn_beta: train one beta per layer.
        learn_threshold: train one threshold per layer.
        surrogate: the derivative of the spike.
        slope: of the surrogates that have one; 0 is snntorch's own (2 for atan, 25 for the others).

    Raises:
        ValueError: a parameter is outside its range, or the surrogate has no slope.
    """

    def __init__(
        self,
        *,
        beta: float = 0.5,
        threshold: float = 1.0,
        reset: Literal["zero", "subtract", "none"] = "zero",
        reset_delay: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        surrogate: SurrogateName = "triangle",
        slope: float = 0.0,
    ) -> None:
        super().__init__(
            beta,
            threshold,
            named_surrogate(surrogate, slope),
            reset_mechanism=reset,
            reset_delay=reset_delay,
            learn_beta=learn_beta,
            learn_threshold=learn_threshold,
        )
