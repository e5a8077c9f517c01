"""Whether the steps of a code say the same: the cosine between each two of them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Similarity:
    """Between the steps of a code."""

    cosine: list[list[float | None]]
    """[t][t']: of code[t] and code[t'], the mean over the images in which neither is all 0; None if
    there is no such image."""
    mean_off_diagonal: float | None
    """Over t != t'; None at T = 1, or if there is no number."""


class SimilaritySum:
    """Sums the cosines of all images over batches."""

    def __init__(self, num_steps: int) -> None:
        self._sum = torch.zeros(num_steps, num_steps, dtype=torch.float64)
        self._images = torch.zeros(num_steps, num_steps, dtype=torch.int64)

    def add(self, code: Float[Tensor, "time batch channel row column"]) -> None:
        """The cosines of a batch."""
        steps = code.flatten(2).transpose(0, 1).double()  # (batch, time, value)
        length = steps.norm(dim=2, keepdim=True)
        unit = steps / torch.where(length > 0, length, 1)
        there = (length > 0).squeeze(2)
        self._sum += (unit @ unit.mT).sum(0)
        self._images += (there.unsqueeze(2) & there.unsqueeze(1)).sum(0)

    def result(self) -> Similarity:
        """The means."""
        means = self._sum / self._images  # NaN where there is no image
        off_diagonal = means[~torch.eye(len(means), dtype=torch.bool)]
        known = off_diagonal[~off_diagonal.isnan()]
        return Similarity(
            cosine=[[None if x != x else x for x in row] for row in means.tolist()],
            mean_off_diagonal=float(known.mean()) if len(known) else None,
        )
