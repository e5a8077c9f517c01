"""Evaluated batches under the operation counter, replayed from CUDA graphs.

The first batch of every shape is counted as on a CPU: the counting waits for the answers it needs.
Later batches of the shape take the same answers, which the GPU checks, so nothing waits and a CUDA
graph can repeat them. The numbers of all batches are read at the end and added up in order. A batch
whose answers were others, for instance because a layer that was silent has spikes, is then run and
counted once more.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from codingbench.counting.counter import OperationCounter
from codingbench.counting.following import CountedBatch
from codingbench.counting.ledger import UnfollowableError
from codingbench.training.graphs import Eager, Function, Tensors


@dataclass(frozen=True)
class _Call:
    """A call of a function, which can be repeated."""

    function: Function
    inputs: Tensors
    draws: Tensor  # the state of the generator before the call


class Counted(Eager):
    """Calls a function that runs one batch through a network, and counts its operations.

    Args:
        counter: counts the operations of the network. Calls must be made inside its context.
        runner: calls the function where nothing waits for the device.
        draws: the generator that the network draws from.

    ``recounted`` is the number of batches that were run once more.
    """

    def __init__(self, counter: OperationCounter, runner: Eager, draws: Generator) -> None:
        self._counter, self._runner, self._draws = counter, runner, draws
        self._firsts: dict[Hashable, CountedBatch | None] = {}  # of each shape; None: do not follow
        self._followed: tuple[Function, CountedBatch] | None = None
        self._uncounted: list[tuple[_Call, CountedBatch, Tensor]] = []
        self.recounted = 0

    def __call__(self, function: Function, *inputs: Tensor) -> Tensors:
        """Return ``function(*inputs)``."""
        key = (function, *(x.shape for x in inputs))
        call = _Call(function, inputs, self._draws.get_state())
        if key not in self._firsts:
            outputs = self._count(call)
            batch = self._counter.batch
            self._firsts[key] = batch if batch and batch.ledger.is_repeatable else None
            return outputs
        first = self._firsts[key]
        if first is None:
            return self._count(call)
        self._followed = function, first
        try:
            *followed, content = self._runner(self._follow, *inputs)
        except UnfollowableError:
            self._firsts[key] = None
            return self._count(call)
        self._uncounted.append((call, first, content))
        return tuple(followed)

    def finish(self) -> None:
        """Count the batches that were called so far; the generator keeps its state."""
        waiting, self._uncounted = self._uncounted, []
        now = self._draws.get_state()
        for call, batch, content in waiting:
            if not self._counter.count(batch, content.tolist()):
                self.recounted += 1
                self._count(call)
        self._draws.set_state(now)

    @torch.no_grad()
    def _count(self, call: _Call) -> Tensors:
        """Make a call and count its batch, after those that are still to be counted."""
        self.finish()
        self._draws.set_state(call.draws)
        return call.function(*call.inputs)

    def _follow(self, *inputs: Tensor) -> Tensors:
        """Return the outputs of the function, then the numbers of its batch."""
        assert self._followed is not None
        function, first = self._followed
        with self._counter.following(first.ledger.answers):
            outputs = function(*inputs)
        batch = self._counter.batch
        if batch is None or not batch.is_like(first):
            raise UnfollowableError("a batch runs other operations than the one before")
        return *outputs, batch.ledger.content()
