"""The activity of a code: how much it emits, when, where and how strongly.

All non-zero values count: spikes, or the values of a graded or real code.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Shape = tuple[int, int, int, int]
"""Shape of one image's code: steps, channels, rows, columns."""


@dataclass(frozen=True)
class Activity:
    """The non-zero values of a code. Shares and rates are in [0, 1]."""

    nonzero_per_image: float
    rate: float
    """Share of all values of the code that are not 0."""
    nonzero_by_step: list[float]
    """Number of non-zero values per image, for each step."""
    rate_by_step: list[float]
    rate_by_row: list[float]
    """Rate in each row from top to bottom, over all steps, channels and columns."""
    rate_by_column: list[float]
    """Rate in each column from left to right."""
    effective_steps: float | None
    """exp(entropy) of the distribution of non-zero values over the steps.

    T if they are spread evenly, 1 if all are in one step, None if there are none.
    """
    busiest_step: int | None
    """Step with the most non-zero values, counted from 1."""
    busiest_share: float | None
    """Share of the non-zero values that are in that step."""
    silent_positions: float
    """Share of code positions (channel, row, column) that are 0 at all steps of all images."""
    silent_images: int
    """Number of images whose code is 0 everywhere."""


@dataclass(frozen=True)
class Amplitudes:
    """Statistics of the non-zero values."""

    mean: float
    std: float
    lowest: float
    highest: float
    std_over_steps: float
    """Root mean square distance of a value from the mean of its position over the steps.

    0 if each position of an image emits the same value whenever it emits one.
    """


class ActivityCount:
    """Counts the non-zero values over batches."""

    def __init__(self, shape: Shape) -> None:
        num_steps, channels, rows, columns = shape
        self.images = 0
        self._by_place = torch.zeros(num_steps, rows, columns, dtype=torch.int64)
        self._ever = torch.zeros(channels, rows, columns, dtype=torch.bool)
        self._silent_images = 0

    def add(self, code: Float[Tensor, "time batch channel row column"]) -> None:
        """Add the code of a batch."""
        nonzero: Bool[Tensor, "time batch channel row column"] = code != 0
        self.images += code.shape[1]
        self._by_place += nonzero.sum((1, 2))
        ever = nonzero.any(0)
        self._ever |= ever.any(0)
        self._silent_images += int((~ever.flatten(1).any(1)).sum())

    def result(self) -> Activity:
        """Return the result for all batches."""
        by_step = self._by_place.sum((1, 2)).double()
        total = int(by_step.sum())
        shares = (by_step / total).tolist() if total else []
        rate = self._by_place.double() / (self.images * len(self._ever))  # time, row, column
        return Activity(
            nonzero_per_image=total / self.images,
            rate=float(rate.mean()),
            nonzero_by_step=(by_step / self.images).tolist(),
            rate_by_step=rate.mean((1, 2)).tolist(),
            rate_by_row=rate.mean((0, 2)).tolist(),
            rate_by_column=rate.mean((0, 1)).tolist(),
            effective_steps=effective_number(shares) if shares else None,
            busiest_step=shares.index(max(shares)) + 1 if shares else None,
            busiest_share=max(shares, default=None),
            silent_positions=float((~self._ever).double().mean()),
            silent_images=self._silent_images,
        )


def effective_number(shares: list[float]) -> float:
    """Return exp(-sum p ln p), the number of equal shares with the same entropy.

    >>> effective_number([0.5, 0.5, 0.0])
    2.0
    """
    return math.exp(-math.fsum(p * math.log(p) for p in shares if p > 0))


class AmplitudeCount:
    """Sums the moments of the non-zero values over batches."""

    def __init__(self) -> None:
        self._number = 0
        self._sum = self._squares = self._within = 0.0
        self._lowest, self._highest = math.inf, -math.inf

    def add(self, code: Float[Tensor, "time batch channel row column"]) -> None:
        """Add the code of a batch."""
        values, nonzero = code.double(), code != 0
        times, sums = nonzero.sum(0), values.sum(0)
        own_mean = sums / times.clamp(min=1)
        self._within += float(((values - own_mean) * nonzero).square().sum())
        self._number += int(times.sum())
        self._sum += float(sums.sum())
        self._squares += float(values.square().sum())
        if nonzero.any():
            lowest, highest = code[nonzero].aminmax()
            self._lowest = min(self._lowest, float(lowest))
            self._highest = max(self._highest, float(highest))

    def result(self) -> Amplitudes | None:
        """Return the statistics; None if all values were 0."""
        if not self._number:
            return None
        mean = self._sum / self._number
        return Amplitudes(
            mean=mean,
            std=math.sqrt(max(0.0, self._squares / self._number - mean**2)),
            lowest=self._lowest,
            highest=self._highest,
            std_over_steps=math.sqrt(self._within / self._number),
        )
