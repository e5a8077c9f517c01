"""Patterns over time: the steps at which a position of the code is not 0.

There are 2^T possible patterns, of which a coding uses few or many. In direct coding, a leaky
integrate-and-fire neuron receives a constant current and spikes periodically, so that only T + 1
patterns occur, including silence. The entropy says how evenly the used patterns occur. Only zero
and non-zero values are distinguished: a graded code has the patterns of the spikes that it scales.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

MAX_STEPS: Final = 62
"""Largest T, because a pattern is stored as a 64-bit integer."""

_SHOWN: Final = 16


@dataclass(frozen=True)
class Patterns:
    """The patterns over time of all code positions of all images."""

    possible: int
    """Number of possible patterns, 2^T."""
    used: int
    """Number of patterns that occur."""
    entropy_bits: float
    """Entropy -sum p log2 p of their shares p, at most T."""
    most_frequent: dict[str, float]
    """Shares in [0, 1] of the 16 most frequent patterns.

    A pattern has one digit per step: ``0100`` is non-zero only at step 2 of 4.
    """


class PatternCount:
    """Counts patterns over batches.

    >>> count = PatternCount(num_steps=2)
    >>> count.add(torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, 0.0, 0.0, 1.0]]).unsqueeze(1))
    >>> count.result().most_frequent
    {'10': 0.5, '00': 0.25, '01': 0.25}
    """

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self.counts: Counter[int] = Counter()

    def add(self, code: Float[Tensor, "time batch *feature"]) -> None:
        """Add the code of a batch."""
        numbers = torch.zeros(code.shape[1:], dtype=torch.int64)
        for step in code:  # the first step is the highest bit
            numbers = 2 * numbers + (step != 0)
        found, times = numbers.unique(return_counts=True)
        self.counts.update(dict(zip(found.tolist(), times.tolist(), strict=True)))

    def result(self) -> Patterns:
        """Return the result for all batches."""
        total = self.counts.total()
        shares = {pattern: times / total for pattern, times in self.counts.items()}
        ranked = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
        return Patterns(
            possible=2**self.num_steps,
            used=len(shares),
            entropy_bits=math.fsum(-p * math.log2(p) for p in shares.values()) + 0.0,
            most_frequent={f"{n:0{self.num_steps}b}": share for n, share in ranked[:_SHOWN]},
        )
