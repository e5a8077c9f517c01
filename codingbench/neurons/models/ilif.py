"""Integer leaky integrate-and-fire neuron (I-LIF): up to D spikes per step.

Source: Luo et al., "Integer-Valued Training and Spike-Driven Inference Spiking Neural Network"
(SpikeYOLO), ECCV 2024 (arXiv 2407.20708), and Spike-Driven Transformer V3 (TPAMI 2025).
"""

from codingbench.neurons.integer import IntegerNeuron
from codingbench.neurons.neuron import Neuron
from codingbench.registry import register_neuron


@register_neuron("ilif")
class Ilif(IntegerNeuron, Neuron):
    """A neuron that sends c = 0 to D spikes per step.

        v[t] = beta (v[t-1] - threshold c[t-1]) + cur[t]
        c[t] = round(clip(v[t] / threshold, 0, D))

    c stands for c binary spikes within D sub-steps and is priced so: D updates per neuron and step,
    and c accumulates for a synapse that reads c; layers that read sums or means of c multiply. The
    derivative of c is 1 / threshold inside the clip, else 0, and does not pass the reset. The steps
    run one by one: no kernel computes this recurrence.

    Args:
        levels: D, at least 1.
        beta: decay of the membrane per step, in [0, 1]; the published code has 0.25.
        threshold: positive.

    Raises:
        ValueError: a parameter is outside its range.
    """

    def __init__(self, *, levels: int = 4, beta: float = 0.25, threshold: float = 1.0) -> None:
        if levels < 1:
            raise ValueError(f"levels must be at least 1, got {levels}")
        super().__init__(levels, beta, threshold)
