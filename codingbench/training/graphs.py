"""Functions of tensors, run eagerly or replayed from CUDA graphs.

Launching the kernels of a small network takes longer than running them. A CUDA graph launches all
kernels of a training step or of an evaluated batch at once, and gives the same bits. A graph
belongs to one function and one shape of its inputs:

1. The first calls of every shape run eagerly. They are ordinary steps of the training, so nothing
   has to be undone, and they warm up what a capture cannot: compilers, libraries and the state of
   the optimizer.
2. The last of them is a rehearsal. It detects what a graph cannot repeat: a wait for the GPU,
   random numbers drawn on the host, and Python attributes that change.
3. The next call is captured, which runs nothing, and then replayed, as are all later ones.

A function that cannot be captured stays eager; one line on stderr says why.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Final, Protocol

from torch import Tensor, nn

from codingbench.errors import printable
from codingbench.training.host_state import HostState

EAGER_CALLS: Final = 5
"""Eager calls of each shape before its capture, which does not pay off for rarer shapes."""

Tensors = tuple[Tensor, ...]
Function = Callable[..., Tensors]
"""A function of tensors. It may update tensors of its owner in place and returns detached ones.
Equal functions share their graphs. The same bound method of one object is equal to itself.
"""

_told: set[str] = set()


class Eager:
    """Calls functions directly."""

    def __call__(self, function: Function, *inputs: Tensor) -> Tensors:
        """Return ``function(*inputs)``."""
        return function(*inputs)

    def release(self) -> None:
        """Free everything that was kept for later calls."""


EAGER: Final = Eager()


class Recorder(Protocol):
    """Captures functions on one device."""

    def aside(self) -> AbstractContextManager[None]:
        """Return a context whose calls run on the same separate stream as captures."""

    def rehearse(self, function: Function, inputs: Tensors) -> tuple[Tensors, str | None]:
        """Return ``function(*inputs)`` and the reason why it cannot be captured, or None.

        The reason completes the sentence "CUDA graphs are off for ...: ".
        """

    def record(self, function: Function, inputs: Tensors) -> Callable[[], Tensors]:
        """Capture the function without running it; return a replay that reads the same tensors.

        The outputs of a replay are overwritten by the next replay of any graph of the recorder.
        """

    def release(self) -> None:
        """Free the memory of all graphs."""


class Replaying(Eager):
    """Calls functions eagerly at first and replays CUDA graphs of them from then on.

    Args:
        recorder: captures the functions.
        network: the network that the functions run; rehearsals compare its attributes.
        name: the name of the network, for the line on stderr.
        eager_calls: eager calls of each shape before its capture; the last is the rehearsal.

    ``refusals`` holds the reason for each function that stays eager, ``captured`` counts the graphs
    made so far, and ``capture_s`` is the time that making them took, in seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        network: nn.Module,
        name: str,
        eager_calls: int = EAGER_CALLS,
    ) -> None:
        self._recorder, self._network, self._name = recorder, network, name
        self._eager_calls = eager_calls
        self._calls: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, _Recording] = {}
        self.refusals: dict[Function, str] = {}
        self.captured, self.capture_s = 0, 0.0

    def __call__(self, function: Function, *inputs: Tensor) -> Tensors:
        """Return ``function(*inputs)``, from a replay if there is a graph."""
        if function in self.refusals:
            return function(*inputs)
        key = (function, *((x.shape, x.stride(), x.dtype) for x in inputs))
        if key not in self._recordings:
            self._calls[key] += 1
            if self._calls[key] < self._eager_calls:
                with self._recorder.aside():
                    return function(*inputs)
            if self._calls[key] == self._eager_calls:
                return self._rehearse(function, inputs)
            started = time.perf_counter()
            try:
                self._recordings[key] = _Recording(self._recorder, function, inputs)
            except Exception as error:  # a capture may raise anything; an eager call still works
                self._refuse(function, f"it cannot be captured ({_cause(error)})")
                return function(*inputs)
            self.captured += 1
            self.capture_s += time.perf_counter() - started
        return self._recordings[key](inputs)

    def release(self) -> None:
        """Free the graphs and their memory."""
        self._recordings.clear()
        self._calls.clear()
        self._recorder.release()

    def _rehearse(self, function: Function, inputs: Tensors) -> Tensors:
        before = HostState(self._network)
        with self._recorder.aside():
            outputs, reason = self._recorder.rehearse(function, inputs)
        reason = reason or before.difference(HostState(self._network))
        if reason:
            self._refuse(function, reason)
        return outputs

    def _refuse(self, function: Function, reason: str) -> None:
        self.refusals[function] = reason
        tell_once(f"CUDA graphs are off for {self._name}: {reason}")


class _Recording:
    """A captured function with its input tensors."""

    def __init__(self, recorder: Recorder, function: Function, inputs: Tensors) -> None:
        self._inputs = tuple(x.detach().clone() for x in inputs)
        self._replay = recorder.record(function, self._inputs)

    def __call__(self, inputs: Tensors) -> Tensors:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        return tuple(x.clone() for x in self._replay())


def tell_once(line: str) -> None:
    """Print a line to stderr unless this process has printed the same line before."""
    if line not in _told:
        _told.add(line)
        print(line, file=sys.stderr, flush=True)


def _cause(error: BaseException) -> str:
    """Return the first line of the error that made a capture fail.

    The end of a failed capture raises another error, whose context is the one that matters. Later
    lines of torch's messages are advice on debugging.
    """
    while error.__context__ is not None:
        error = error.__context__
    lines = str(error).strip().splitlines() or [""]
    return printable(f"{type(error).__name__}: {lines[0]}")
