"""Follow what the values of a batch belong to: a time step, all steps, or neither.

Every tensor that an operation returns gets a trace, made from the traces of its inputs. ``x[t]`` of
a tensor [T, B, ...] belongs to step t, and so does what is computed from it. What is computed from
the whole tensor belongs to all steps. Sizes alone cannot tell the two apart: N tokens of a step are
as many rows as N steps of a token.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Any, Final

import torch
from torch import Tensor

_aten = torch.ops.aten
ALL: Final = 0
"""The step of a tensor that holds the values of all steps."""
NONE: Final = -1
"""The step of a tensor that was computed from the images alone, or that an operation created."""
_ATTRIBUTE = "_codingbench_trace"
_MOST_PARTS = 2**20
_JOINS = (_aten.cat, _aten.stack)
_CUTS = (_aten.split, _aten.split_with_sizes, _aten.unsafe_split, _aten.unsafe_split_with_sizes)
_CREATIONS = (_aten.zeros_like, _aten.new_zeros, _aten.empty_like, _aten.new_empty)
_MOVES = (_aten.clone, _aten._to_copy, _aten._unsafe_view, _aten.copy_)


@dataclass(frozen=True, slots=True)
class Trace:
    """Facts about the origin of a tensor."""

    batch: object
    """The batch in which the tensor was computed; a trace of an earlier one is void."""
    step: int | None = None
    """1 to T, or :data:`ALL` or :data:`NONE`; None if unknown, as of a constant."""
    outer: int = 1
    """For all steps: how often the rows run through the steps, [outer, T, ...]."""
    parts: int = 1
    """n, if the values are multiples of 1/n wherever the pooled values are whole numbers."""
    product: "Product | None" = None
    """The two factors, if the tensor is an element-wise product."""


@dataclass(frozen=True, slots=True)
class Product:
    """An element-wise product of two tensors, which becomes a matrix product if it is summed."""

    x: Tensor
    y: Tensor
    record: Any
    """The record that counted it; None if it was not counted."""

    def is_contracted(self, axes: Iterable[int], dim: int) -> bool:
        """Return whether a sum over these of ``dim`` axes is one over products, sum(x y)."""
        return any(_width(self.x, axis, dim) > 1 < _width(self.y, axis, dim) for axis in axes)


def _width(x: Tensor, axis: int, dim: int) -> int:
    """Return the size of a tensor along an axis of the ``dim`` to which it is broadcast."""
    at = axis % dim - dim + x.dim()
    return x.shape[at] if at >= 0 and x.stride(at) != 0 else 1


def tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield all tensors among the values, including those in nested lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)


class Traces:
    """The traces of the tensors of the current batch."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._images = 0
        self._batch = object()
        self._nothing = Trace(self._batch)

    def start(self, images: int) -> None:
        """Begin a batch: the traces of the one before are void."""
        self._images, self._batch = images, object()
        self._nothing = Trace(self._batch)

    def of(self, x: Tensor) -> Trace:
        """Return the trace of a tensor."""
        trace: Trace | None = getattr(x, _ATTRIBUTE, None)
        return self._nothing if trace is None or trace.batch is not self._batch else trace

    def mark(self, x: Tensor, **changes: Any) -> None:
        """Change the trace of a tensor."""
        setattr(x, _ATTRIBUTE, replace(self.of(x), **changes))

    def like(self, x: Tensor, other: Tensor) -> Tensor:
        """Give ``x``, the same values in another shape, the trace of ``other``; return ``x``."""
        if x is not other and (trace := self.of(other)) is not self._nothing:
            setattr(x, _ATTRIBUTE, replace(trace, product=None))
        return x

    def latest(self, args: Iterable[Any]) -> int | None:
        """Return the step of what is computed from the arguments."""
        return _latest(self.of(x).step for x in tensors(args))

    def matters(self, func: Any, x: Tensor) -> bool:
        """Return whether the axes of ``x`` say to which step the results belong."""
        packet = func._overloadpacket
        is_moved = func.is_view or packet in _MOVES or packet in _GATHERS
        return self._num_steps > 1 and is_moved and x.dim() > 2

    def pass_on(self, inputs: Iterable[Any], outputs: Iterable[Any]) -> None:
        """Let outputs of unknown step, such as those of a neuron, belong to that of the inputs."""
        step = _latest(self.of(x).step for x in tensors(inputs))
        if step is not None:
            for x in tensors(outputs):
                if self.of(x).step is None:
                    self.mark(x, step=step)

    def is_time_first(self, x: Tensor, looks_so: bool) -> bool:
        """Return whether the first axis of a tensor is time.

        Args:
            x: the tensor.
            looks_so: whether its axes are taken for [T, B, ...].
        """
        trace = self.of(x)
        if trace.step is not None and trace.step > ALL:
            return False
        rows = x.shape[1] if x.dim() > 1 else 0
        is_inside = rows > 0 and rows % (self._num_steps * self._images) == 0
        is_all = trace.step == ALL and trace.outer == 1 and not is_inside
        return looks_so or (is_all and x.dim() > 1 and x.shape[0] == self._num_steps)

    def follow(self, func: Any, args: tuple[Any, ...], output: Any, looks_timed: bool) -> None:
        """Give the results of an operation their traces.

        Args:
            func: the operation.
            args: its arguments.
            output: its result or results.
            looks_timed: whether the axes of the first argument are taken for [T, B, ...].
        """
        inputs = list(tensors(args))
        known = [trace for trace in map(self.of, inputs) if trace is not self._nothing]
        if not inputs or func._overloadpacket in _CREATIONS:
            for x in tensors((output,)):
                if func._overloadpacket is not _aten.lift_fresh:
                    self._set(x, NONE, 1, 1)
            return
        if not known and not looks_timed and func._overloadpacket not in _GATHERS:
            return
        keeps = func.is_view or func._overloadpacket in _KEEPING
        parts = min(_MOST_PARTS, lcm(*(trace.parts for trace in known))) if keeps else 1
        if self._num_steps == 1:
            for x in tensors((output,)):
                self._set(x, None, 1, parts)
            return
        steps = self._cut(func, args, output, looks_timed)
        if steps is not None:
            for x, step in zip(tensors((output,)), steps, strict=False):
                self._set(x, step, 1, parts)
            return
        step = _latest(trace.step for trace in known)
        if self._joins_steps(func, args, output, step):
            step = ALL
        for x in tensors((output,)):
            is_moved = func.is_view or func._overloadpacket in _MOVES
            if step in (None, NONE) and looks_timed and is_moved and self._keeps_time(x):
                self._set(x, ALL, 1, parts)
            else:
                outer = max((trace.outer for trace in known if trace.step == ALL), default=1)
                self._set(x, step, self._turned(func, args, x, step, outer), parts)
            if func._schema.is_mutable and x._base is not None and self.of(x._base).step != ALL:
                self._set(x._base, ALL if step == ALL else None, 1, 1)

    def _set(self, x: Tensor, step: int | None, outer: int, parts: int) -> None:
        if step is not None or parts > 1:
            setattr(x, _ATTRIBUTE, Trace(self._batch, step, outer, parts))
        elif getattr(x, _ATTRIBUTE, None) is not None:
            setattr(x, _ATTRIBUTE, self._nothing)

    def _keeps_time(self, x: Tensor) -> bool:
        first = next((size for size in x.shape if size != 1), 0)
        folded = self._num_steps * self._images
        return first > 0 and (first % folded == 0 or first == self._num_steps)

    def _turned(
        self, func: Any, args: tuple[Any, ...], output: Tensor, step: int | None, outer: int
    ) -> int:
        """Return ``outer`` after an operation, which may exchange the first two axes."""
        packet = func._overloadpacket
        if step != ALL or packet is not _aten.transpose or output.dim() < 2:
            return outer
        if {axis % output.dim() for axis in args[1:3]} != {0, 1}:
            return outer
        rows, columns = output.shape[1], output.shape[0]
        folded = self._num_steps * self._images
        if outer == 1 and rows % folded == 0 and rows > 0:
            return int(columns)
        return 1 if outer > 1 and columns % folded == 0 else outer

    def _cut(
        self, func: Any, args: tuple[Any, ...], output: Any, looks_timed: bool
    ) -> Sequence[int | None] | None:
        """Return the steps of the results, if the operation takes steps out of all."""
        packet = func._overloadpacket
        if packet not in _TAKES or not isinstance(args[0], Tensor):
            return None
        x = args[0]
        if not self._axis_is_time(x, _axis(packet, args), looks_timed):
            return None
        if packet is _aten.select:
            return [args[2] % x.shape[args[1]] * self._num_steps // x.shape[args[1]] + 1]
        cut = [output] if isinstance(output, Tensor) else list(output)
        if packet is _aten.slice:
            start = (args[2] if len(args) > 2 else 0) or 0
            begin = start % len(x)
            width = len(x) // self._num_steps
            is_one = len(output) == width and begin % width == 0
            return [begin // width + 1] if is_one else None
        return range(1, len(cut) + 1) if len(cut) == self._num_steps else None

    def _axis_is_time(self, x: Tensor, axis: int, looks_timed: bool) -> bool:
        """Return whether an axis is that of the steps, or of the steps and their images."""
        trace = self.of(x)
        if x.dim() == 0 or (trace.step or ALL) > ALL or trace.outer > 1:
            return False
        if axis % x.dim() == 0:
            is_folded = trace.step == ALL and len(x) == self._num_steps * self._images
            return is_folded or self.is_time_first(x, looks_timed)
        is_second = axis % x.dim() == 1 and self._images != self._num_steps
        return is_second and trace.step == ALL and x.shape[:2] == (self._images, self._num_steps)

    def _joins_steps(self, func: Any, args: tuple[Any, ...], output: Any, step: int | None) -> bool:
        """Return whether an operation puts all steps together, in order."""
        packet = func._overloadpacket
        if packet is _aten.repeat and isinstance(output, Tensor) and output.dim():
            x, folded = args[0], self._num_steps * self._images
            return (
                step in (None, NONE)
                and x.dim() > 0
                and len(x) == self._images
                and len(output) == folded
            )
        if packet not in _JOINS or step == ALL:
            return False
        axis = args[1] if len(args) > 1 else 0
        steps = {self.of(x).step for x in args[0]}
        is_new = len(steps) == self._num_steps or steps <= {None, NONE}
        return axis == 0 and len(args[0]) == self._num_steps and is_new


_TAKES: Final = frozenset({_aten.select, _aten.unbind, _aten.slice, *_CUTS})
"""Operations that take steps out of a tensor."""

_GATHERS: Final = frozenset({_aten.repeat, *_TAKES, *_JOINS})
"""Operations that take steps out of a tensor or put them together."""

_KEEPING: Final = frozenset(
    {getattr(_aten, name) for name in ("add", "add_", "sub", "amax", "mean", "relu", "sum")}
    | {getattr(_aten, name) for name in ("max_pool2d_with_indices", "avg_pool2d", "avg_pool3d")}
    | {_aten.div, _aten.mul, _aten._adaptive_avg_pool2d, _aten._adaptive_avg_pool3d}
    | {*_GATHERS, *_MOVES}
)
"""Operations after which multiples of 1/n are multiples of 1/n, or of 1 / (n times something)."""


def _axis(packet: Any, args: tuple[Any, ...]) -> int:
    place = 2 if packet in _CUTS else 1
    return int(args[place]) if len(args) > place else 0


def _latest(steps: Iterable[int | None]) -> int | None:
    return max((step for step in steps if step is not None), default=None)
