"""The numbers of a counted batch, read all at once, and the decisions that its content led to.

Tensors are measured on their device. Reading each number there would make a GPU wait hundreds of
times per batch, so a ledger reads them together when the batch has ended.

In a few places the path of the counting depends on the content of a tensor, for example on whether
all values are 0 or 1. A first ledger waits for each answer and notes it. A ledger that follows it
takes the same answers and has the device check that they are right. It never waits, so a CUDA graph
can repeat the batch. The checks are read with the numbers; if one fails, the counts are not valid.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Question = Callable[[], Tensor]


class UnfollowableError(Exception):
    """A batch took another path than the one before, or one that a CUDA graph cannot repeat."""


class Number:
    """A number of a batch. ``value`` is set when the ledger has been read."""

    __slots__ = ("value",)

    value: float


class Ledger:
    """The numbers and decisions of one batch.

    Args:
        answers: those of an earlier batch of the same shape, which are expected again; None: wait
            for each answer.
    """

    def __init__(self, answers: Sequence[bool] | None = None) -> None:
        self.answers: list[bool] = []
        self.is_repeatable = True
        """False if something had to be computed on the host."""
        self._expected = answers
        self._numbers: list[Number] = []
        self._content: list[Tensor] = []
        self._checks: list[Tensor] = []

    def decide(self, is_so: Question, may_be_so: Question | None = None) -> bool:
        """Return the answer to a question.

        Args:
            is_so: returns the answer, as a tensor with one boolean.
            may_be_so: returns a faster answer, whose False is always right. It is not asked when
                another batch is followed, because its True may be chance.

        Raises:
            UnfollowableError: the batch before asked fewer questions.
        """
        if self._expected is None:
            answer = (may_be_so is None or bool(may_be_so())) and bool(is_so())
        else:
            if len(self.answers) == len(self._expected):
                raise UnfollowableError("a batch asks more questions than the one before")
            answer = self._expected[len(self.answers)]
            self._checks.append(is_so() == answer)
        self.answers.append(answer)
        return answer

    def number(self, x: Tensor) -> Number:
        """Note a tensor with one element."""
        (number,) = self.numbers(x.reshape(1))
        return number

    def numbers(self, x: Tensor) -> list[Number]:
        """Note all elements of a tensor with one axis."""
        noted = [Number() for _ in range(len(x))]
        self._numbers += noted
        self._content.append(in_double(x))
        return noted

    def leave_device(self) -> None:
        """State that the next operations run on the host.

        Raises:
            UnfollowableError: this ledger follows another one, so nothing may wait.
        """
        self.is_repeatable = False
        if self._expected is not None:
            raise UnfollowableError("the host has to compute something")

    def content(self) -> Tensor:
        """Return all numbers, and at the end a 1 if every check holds, else a 0, on the device.

        Raises:
            UnfollowableError: the batch before asked more questions.
        """
        if self._expected is not None and len(self.answers) < len(self._expected):
            raise UnfollowableError("a batch asks fewer questions than the one before")
        device = self._content[0].device if self._content else torch.device("cpu")
        holds = torch.ones((), dtype=torch.float64, device=device)
        if self._checks:
            holds = torch.stack([check.to(device) for check in self._checks]).all().double()
        content = [x if x.device == device else x.to(device) for x in self._content]
        return torch.cat([*content, holds.reshape(1)])

    def forget_content(self) -> None:
        """Free the tensors; the numbers can still be set."""
        self._content, self._checks = [], []

    def set(self, values: Sequence[float]) -> bool:
        """Set all numbers from what :meth:`content` returned; return whether every check holds.

        Raises:
            UnfollowableError: there are more or fewer numbers.
        """
        if len(values) != len(self._numbers) + 1:
            raise UnfollowableError("a batch has more or fewer numbers than the one before")
        for number, value in zip(self._numbers, values[:-1], strict=True):
            number.value = value
        return bool(values[-1])


def in_double(x: Tensor) -> Tensor:
    """Return the values in float64, in which counts are exact up to 2^53."""
    return (x.cpu() if x.device.type == "mps" else x).double()  # MPS has no float64
