"""Population coding: several cells per pixel, each tuned to an intensity of its own.

Source: Bohte, Kok & La Poutre, "Error-backpropagation in temporally encoded networks of spiking
neurons" (SpikeProp), Neurocomputing 48 (2002), 17-37: overlapping Gaussian receptive fields, the
better the match the earlier the single spike, and no spike where the match is too poor.
"""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from codingbench.encoder import PixelEncoder, Setting
from codingbench.registry import register_encoder


@register_encoder("population")
class PopulationEncoder(PixelEncoder):
    """Cell i of n spikes once, at step round((T - 1)(1 - r_i)), if r_i >= ``least``.

        r_i = exp(-(x - m_i)^2 / (2 s^2)),  m_i = (2 i - 3) / (2 (n - 2)),  i = 1 ... n
        s = 1 / (overlap (n - 2))

    The centres m_i are those of the source for values in [0, 1]; the outermost two lie outside. The
    code has the shape [T, B, n C, H, W]: the maps of cell 1 for all channels of the image, then
    those of cell 2, and so on.

    Args:
        cells: n, at least 3.
        overlap: beta of the source, which has values from 1 to 2; positive.
        least: response below which a cell is silent; in (0, 1].

    Raises:
        ValueError: a parameter is outside its range, or some intensity would excite no cell.
    """

    emits = "binary"
    centers: Tensor

    def __init__(
        self, setting: Setting, *, cells: int = 4, overlap: float = 1.5, least: float = 0.1
    ) -> None:
        super().__init__(setting)
        if cells < 3:
            raise ValueError(f"cells must be at least 3, got {cells}")
        if not overlap > 0:
            raise ValueError(f"overlap must be positive, got {overlap}")
        # Halfway between two centres, the distance in units of s is overlap / 2.
        largest = math.exp(-((overlap / 2) ** 2) / 2)
        if not 0 < least <= largest:
            raise ValueError(
                f"least must be in (0, {largest:.3g}], or intensities between two centres excite "
                f"no cell, got {least}"
            )
        self.channels, self.least = cells, least
        self.width = 1 / (overlap * (cells - 2))
        centers = [(2 * i - 3) / (2 * (cells - 2)) for i in range(1, cells + 1)]
        self.register_buffer("centers", torch.tensor(centers).reshape(-1, 1, 1, 1), False)

    def drive(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch code height width"]:
        """Return the responses r, cell by cell."""
        distance = (images.unsqueeze(1) - self.centers) / self.width
        return torch.exp(-(distance**2) / 2).flatten(1, 2)

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch code height width"]:
        """Return the spikes; ``generator`` is not used."""
        response = self.drive(images)
        fire_at = torch.round((self.num_steps - 1) * (1 - response))
        steps = torch.arange(self.num_steps, device=images.device).reshape(-1, 1, 1, 1, 1)
        return ((fire_at == steps) & (response >= self.least)).to(images.dtype)
