"""Control arms of GAC: the method with parts removed, replaced or moved into the stem.

Source: codingbench. On a still image, GAC's temporal attention (arXiv 2308.06582 and its code) is a
number for each image times nearly one learned vector over the steps, and its gate changes the size
of spikes, not their pattern. The arms find out which parts matter.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codingbench.encoder import Setting
from codingbench.registry import register_encoder

from .gac import GACEncoder

Arm = Literal["temporal", "spatial", "vector", "vector_spatial", "half", "stem"]


@register_encoder("gac_control")
class GACControlEncoder(GACEncoder):
    """code[t] = LIF(y)[t] * gate[t],  y = stem(image), TA and SCA as in ``gac``; gate[t] is

        temporal:        sigmoid(TA(y)[t])          temporal attention only
        spatial:         sigmoid(SCA(y))            spatial-channel attention only
        vector:          sigmoid(w[t])              T learned numbers instead of any attention
        vector_spatial:  sigmoid(w[t] SCA(y))       T learned numbers instead of the temporal one
        half:            0.5                        a constant gate

    and ``stem`` has no gate: code[t] = LIF(y + SCA(y))[t] puts the parameters of GAC's spatial
    attention into the stem, where they make the spikes instead of weighing them. w is 1 at first.
    SCA has the same initial weights as in ``gac`` with the same seed.

    Args:
        arm: one of these.
        kernel_size: of SCA.

    Raises:
        ValueError: kernel_size is not positive.
    """

    def __init__(self, setting: Setting, *, arm: Arm = "temporal", kernel_size: int = 4) -> None:
        super().__init__(setting, kernel_size=kernel_size)
        self.arm = arm
        if arm != "temporal":
            del self.temporal
        if arm in ("temporal", "vector", "half"):
            del self.spatial
        if arm in ("vector", "vector_spatial"):
            self.vector = nn.Parameter(torch.ones(self.num_steps))
        if arm == "stem":
            self.emits = "binary"  # type: ignore[assignment]  # mypy takes gac's for the only value

    def gate(self, features: Float[Tensor, "batch stem rows columns"]) -> Float[Tensor, "..."]:
        """Return the arm's gate, in (0, 1), of a shape that expands to [T, B, S, H', W']."""
        if self.arm == "half":
            return features.new_tensor(0.5)
        if self.arm == "spatial":
            return torch.sigmoid(self.spatial(features))
        if self.arm == "temporal":
            return torch.sigmoid(self._attention(features))
        over_time = self.vector.reshape(-1, 1, 1, 1, 1)
        if self.arm == "vector":
            return torch.sigmoid(over_time)
        return torch.sigmoid(over_time * self.spatial(features))

    def _attention(
        self, features: Float[Tensor, "batch stem rows columns"]
    ) -> Float[Tensor, "time batch 1 1 1"]:
        """Return TA, the temporal attention, which ``gac`` computes inside its gate."""
        pooled = torch.stack([features.mean((1, 2, 3)), features.amax((1, 2, 3))], dim=1)
        over_steps = pooled.unsqueeze(2).expand(-1, -1, self.num_steps)  # (batch, mean|max, time)
        temporal: Tensor = self.temporal(over_steps).sum(1).T
        return temporal[:, :, None, None, None]

    def encode(
        self, features: Float[Tensor, "batch stem rows columns"]
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Return the gated spikes [T, B, S, H', W']; for ``stem`` those of the longer stem."""
        if self.arm != "stem":
            return super().encode(features)
        cur = features + self.spatial(features)
        spk: Tensor = self.neuron(cur.expand(self.num_steps, *cur.shape))
        return spk
