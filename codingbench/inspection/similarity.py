"""The similarity of the steps of a code: the cosine between each two of them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Similarity:
    """Cosines between the steps of a code."""

    cosine: list[list[float | None]]
    """Mean cosine of code[t] and code[t'], as [t][t'].

    The mean is over the images in which neither is all 0; None if there is no such image.
    """
    mean_off_diagonal: float | None
    """Mean over t != t'; None at T = 1, or if all entries are None."""


class SimilaritySum:
    """Sums the cosines of images over batches."""

    def __init__(self, num_steps: int) -> None:
        self._sum = torch.zeros(num_steps, num_steps, dtype=torch.float64)
        self._images = torch.zeros(num_steps, num_steps, dtype=torch.int64)

    def add(self, code: Float[Tensor, "time batch channel row column"]) -> None:
        """Add the code of a batch."""
        steps = code.flatten(2).transpose(0, 1).double()  # (batch, time, value)
        length = steps.norm(dim=2, keepdim=True)
        unit = steps / torch.where(length > 0, length, 1)
        is_active = (length > 0).squeeze(2)
        self._sum += (unit @ unit.mT).sum(0)
        self._images += (is_active.unsqueeze(2) & is_active.unsqueeze(1)).sum(0)

    def result(self) -> Similarity:
        """Return the means over all images."""
        means = self._sum / self._images  # NaN where there is no image
        off_diagonal = means[~torch.eye(len(means), dtype=torch.bool)]
        known = off_diagonal[~off_diagonal.isnan()]
        return Similarity(
            cosine=[[None if x != x else x for x in row] for row in means.tolist()],
            mean_off_diagonal=float(known.mean()) if len(known) else None,
        )
