"""Direct coding: the first layer's neurons make the spikes.

Source: Wu, Deng, Li, Zhu, Xie & Shi, "Direct training for spiking neural networks: faster, larger,
better", AAAI 2019 (the encoding layer); its two arms as GAC's paper and code use them
(arXiv 2308.06582): the paper's figure has conv-BN-LIF, the code's switch leaves conv-BN.
"""

from jaxtyping import Float
from torch import Tensor

from codingbench.encoder import FeatureEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("direct")
class DirectEncoder(FeatureEncoder):
    """code[t] = LIF(y)[t] for the constant current y = stem(image); without neurons code[t] = y.

    Under a constant current a LIF emits at most T + 1 of the 2^T spike patterns.

    Args:
        spiking: true is conv-BN-LIF; false is conv-BN, a constant real current.
    """

    def __init__(self, setting: Setting, *, spiking: bool = True) -> None:
        super().__init__(setting)
        self.neuron = setting.make_neuron() if spiking else None
        self.emits = "binary" if spiking else "real"

    def encode(
        self, features: Float[Tensor, "batch stem rows columns"]
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Return spikes [T, B, S, H', W'], or the current at every step."""
        cur = features.expand(self.num_steps, *features.shape)
        if self.neuron is None:
            return cur
        spk: Tensor = self.neuron(cur)
        return spk
