"""Phase coding: the binary digits of a pixel, the most significant first.

Source: Kim, Kim, Huh et al., "Deep neural networks with weighted spikes", Neurocomputing 311
(2018), 373-386. The spikes are those of SpikingJelly's ``WeightedPhaseEncoder``.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from codingbench.encoder import PixelEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("phase")
class PhaseEncoder(PixelEncoder):
    """x = sum_t 2^-(t + 1) spk[t] + rest, t counted from 0, 0 <= rest; digits are taken greedily.

    The spikes are binary; it is the receiver that knows a digit's worth: the current of step t is
    ``2^-t stem(spk[t])``, on hardware a shift of the synapses' weights. x = 1, which T digits
    cannot write, spikes at every step.

    Args:
        weighted: false gives every digit the same weight, as codes do that leave the weights out.
    """

    emits = "binary"

    def __init__(self, setting: Setting, *, weighted: bool = True) -> None:
        super().__init__(setting)
        if weighted:
            self.weigh([0.5**t for t in range(self.num_steps)])

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """Return spikes [T, B, C, H, W] of images [B, C, H, W]; ``generator`` is not used."""
        rest, spk = images, []
        for t in range(self.num_steps):
            worth = 0.5 ** (t + 1)
            spk.append((rest >= worth).to(images.dtype))
            rest = rest - worth * spk[-1]
        return torch.stack(spk)
