"""Patterns over time: at which of the T steps a position of the code is not 0.

There are 2^T of them, and a coding uses few or many. A leaky integrate-and-fire neuron under a
constant current, which is direct coding, has a period and no more: T + 1 patterns, silence
included. Entropy says how evenly those in use are used; both look at the support alone, so a
graded code has the patterns of the spikes that it scales.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

MOST_STEPS: Final = 62
"""A pattern is a 64-bit whole number."""

_SHOWN: Final = 16


@dataclass(frozen=True)
class Patterns:
    """The patterns over time of all code positions of all images."""

    possible: int
    """2^T."""
    used: int
    """Those that occur."""
    entropy_bits: float
    """-sum p log2 p over their shares p, at most T."""
    most_frequent: dict[str, float]
    """The 16 most frequent, a digit per step (``0100``: step 2 of 4 alone) -> share, in [0, 1]."""


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
        """The patterns of a batch."""
        numbers = torch.zeros(code.shape[1:], dtype=torch.int64)
        for step in code:  # the first step is the highest bit
            numbers = 2 * numbers + (step != 0)
        found, times = numbers.unique(return_counts=True)
        self.counts.update(dict(zip(found.tolist(), times.tolist(), strict=True)))

    def result(self) -> Patterns:
        """What was counted."""
        total = self.counts.total()
        shares = {pattern: times / total for pattern, times in self.counts.items()}
        ranked = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
        return Patterns(
            possible=2**self.num_steps,
            used=len(shares),
            entropy_bits=math.fsum(-p * math.log2(p) for p in shares.values()) + 0.0,
            most_frequent={f"{n:0{self.num_steps}b}": share for n, share in ranked[:_SHOWN]},
        )
