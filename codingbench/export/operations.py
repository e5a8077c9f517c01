"""Translate torch functions into nodes, and refuse those that NIR cannot express.

A maker takes the recorder, the result of the torch function, and the arguments of the torch
function, in which each tensor that depends on the input is replaced by its signal. It returns the
signal of the result, or raises :class:`Refused`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from codingbench.export.signals import Axes, NodeRecorder, NoNode, Refused, Signal
from codingbench.neurons import MultiStepLeaky, is_known_binary

Maker = Callable[..., Signal]
Pair = int | Sequence[int]


def maker_of(function: str) -> Maker:
    """Return the maker for the torch function of that name, which may be one that refuses."""
    return _MAKERS.get(function, _refuse("NIR has no node for it"))


def neuron(module: nn.Module, recorder: NodeRecorder, out: Tensor, cur: Any) -> Signal:
    """Record a LIF neuron that resets to zero at the step of its spike.

    Raises:
        Refused: the neuron follows another rule.
    """
    cur = _signal(cur)
    if not isinstance(module, MultiStepLeaky):
        raise Refused("neurons that are called once per step cannot be traced; use MultiStepLeaky")
    if not is_known_binary(module):
        raise Refused("NIR's LIF has no inhibition, quantised state or graded spikes")
    if module.reset_mechanism != "zero":
        reset = module.reset_mechanism
        raise Refused(f"NIR's LIF resets to a fixed value, but this neuron's reset is {reset!r}")
    if module.reset_delay:
        raise Refused("NIR's LIF resets at the step of the spike, but this neuron one step later")
    if cur.axes != "timed":
        raise Refused("the neuron does not run over the time steps")
    beta = module.beta.clamp(0, 1)
    if (beta == 1).any():
        raise Refused(
            "NIR's LIF needs a finite time constant, but this neuron has no leak (beta = 1)"
        )
    values = {"beta": beta, "threshold": module.threshold}
    return recorder.append("lif", cur.sources, cur.shape, "timed", **values)


def _refuse(reason: str) -> Maker:
    def make(*args: Any, **kwargs: Any) -> Signal:
        raise NoNode(reason)

    return make


def _same(recorder: NodeRecorder, out: Any, x: Any, *args: Any, **kwargs: Any) -> Signal:
    return _signal(x)


def _cast(recorder: NodeRecorder, out: Tensor, x: Any, *args: Any, **kwargs: Any) -> Signal:
    if not out.is_floating_point():
        raise Refused("NIR has no conversion to integers or booleans")
    return _signal(x)


def _signal(x: Any) -> Signal:
    if not isinstance(x, Signal):
        raise Refused("an operand that should depend on the input is constant")
    return x


def _batch_first(x: Any) -> Signal:
    """Return the signal, whose first axis must be the batch as stateless layers need it."""
    signal = _signal(x)
    if signal.axes == "timed":
        raise Refused("time steps must be folded into the batch with over_time")
    return signal


def _convolution(
    recorder: NodeRecorder,
    out: Tensor,
    x: Any,
    weight: Any,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: str | Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Signal:
    x = _batch_first(x)
    if isinstance(weight, Signal):
        raise Refused("NIR has no weights that depend on the input")
    if groups != 1:
        raise Refused("the nir package computes a wrong output shape for grouped convolutions")
    geometry: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    weights = {"weight": weight, "bias": _or_zeros(bias, weight)}
    return recorder.append("conv", x.sources, out.shape[1:], x.axes, **weights, **geometry)


def _linear(
    recorder: NodeRecorder, out: Tensor, x: Any, weight: Any, bias: Tensor | None = None
) -> Signal:
    x = _signal(x)
    if isinstance(weight, Signal):
        raise Refused("NIR has no weights that depend on the input")
    if len(x.shape) != 1:
        raise Refused("NIR's linear layer takes one vector per image and step")
    weights = {"weight": weight, "bias": _or_zeros(bias, weight)}
    return recorder.append("linear", x.sources, out.shape[x.leading :], x.axes, **weights)


def _or_zeros(bias: Tensor | None, weight: Tensor) -> Tensor:
    return weight.new_zeros(len(weight)) if bias is None else bias


def _batch_norm(
    recorder: NodeRecorder,
    out: Tensor,
    x: Any,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Signal:
    """Fold the norm into the preceding layer.

    w' = g w,  b' = g (b - mean) + bias,  g = weight / std.
    """
    x = _batch_first(x)
    if training or mean is None or var is None:
        raise Refused("NIR has no batch statistics, which this batch norm uses")
    layer, *others = x.sources
    if others or layer.kind not in ("conv", "linear"):
        raise Refused(
            "NIR has no batch norm, and no layer precedes this one into which it could be folded"
        )
    gain = torch.rsqrt(var + eps) * (1 if weight is None else weight)
    kernel = layer.attributes["weight"]
    folded = {
        "weight": kernel * gain.reshape(-1, *[1] * (kernel.dim() - 1)),
        "bias": gain * (layer.attributes["bias"] - mean) + (0 if bias is None else bias),
    }
    made = recorder.append(
        layer.kind, layer.inputs, layer.shape, x.axes, **layer.attributes | folded
    )
    made.sources[0].name = layer.name
    return made


def _add(recorder: NodeRecorder, out: Tensor, x: Any, y: Any, alpha: float = 1) -> Signal:
    """Record no node: NIR sums the signals that enter a node by several edges."""
    if not (isinstance(x, Signal) and isinstance(y, Signal)):
        raise Refused("NIR sums signals only, but one of these two operands is constant")
    is_mixed = x.axes != y.axes and "folded" in (x.axes, y.axes)
    if alpha != 1 or x.shape != y.shape or is_mixed:
        raise Refused("NIR sums only signals of the same shape, each with factor 1")
    if set(x.sources) & set(y.sources):
        raise Refused(
            "NIR has at most one edge between two nodes, but this sum contains a signal twice"
        )
    axes: Axes = "timed" if "timed" in (x.axes, y.axes) else x.axes
    return Signal(x.sources + y.sources, axes, x.shape)


def _mean(
    recorder: NodeRecorder, out: Tensor, x: Any, dim: Any = None, keepdim: bool = False
) -> Signal:
    """Express a mean over all positions as a pool of the image's size, then flatten."""
    x = _signal(x)
    given = (dim,) if isinstance(dim, int) else tuple(dim or ())
    axes = {axis % (x.leading + len(x.shape)) for axis in given}
    if len(x.shape) != 3 or axes != {x.leading + 1, x.leading + 2}:
        raise Refused("NIR has means over all positions, but not over other axes")
    pooled = _pool(recorder, "mean_pool", x, x.shape[1:], x.shape[1:], 0, (x.shape[0], 1, 1))
    return pooled if keepdim else _flattened(recorder, pooled)


def _mean_pool(
    recorder: NodeRecorder,
    out: Tensor,
    x: Any,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Signal:
    x = _batch_first(x)
    if ceil_mode or divisor_override or (any(pair(padding)) and not count_include_pad):
        raise Refused(
            "NIR's mean pooling always divides by the size of the kernel and drops partial windows"
        )
    return _pool(recorder, "mean_pool", x, kernel_size, stride, padding, out.shape[1:])


def _adaptive_mean_pool(recorder: NodeRecorder, out: Tensor, x: Any, output_size: Any) -> Signal:
    x = _batch_first(x)
    sizes = list(zip(x.shape[1:], out.shape[2:], strict=True))
    if any(before % after for before, after in sizes):
        raise Refused("NIR's mean pooling needs windows of equal size")
    kernel_size = [before // after for before, after in sizes]
    return _pool(recorder, "mean_pool", x, kernel_size, None, 0, out.shape[1:])


def _max_pool(
    recorder: NodeRecorder,
    out: Tensor,
    x: Any,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Signal:
    """Express the maximum of spikes, which are 0 or 1, as: their sum is above 1/2."""
    x = _batch_first(x)
    if [node.kind for node in x.sources] not in (["lif"], ["threshold"]):
        raise Refused(
            "NIR has no maximum; only one over the spikes of a single layer can be expressed"
        )
    if ceil_mode or return_indices or any(step != 1 for step in pair(dilation)):
        raise Refused("NIR's pooling has no dilation, no indices and no partial windows")
    total = _pool(recorder, "sum_pool", x, kernel_size, stride, padding, out.shape[1:])
    half = {"threshold": torch.tensor(0.5)}
    return recorder.append("threshold", total.sources, total.shape, x.axes, "any", **half)


def _pool(
    recorder: NodeRecorder,
    kind: str,
    x: Signal,
    kernel_size: Pair,
    stride: Pair | None,
    padding: Pair,
    shape: tuple[int, ...],
) -> Signal:
    windows = {"kernel_size": kernel_size, "stride": stride or kernel_size, "padding": padding}
    return recorder.append(kind, x.sources, shape, x.axes, kind, **windows)


def pair(value: Pair) -> tuple[int, int]:
    """Return (vertical, horizontal); one number stands for both."""
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


def _flatten(
    recorder: NodeRecorder, out: Tensor, x: Any, start_dim: int = 0, end_dim: int = -1
) -> Signal:
    x = _signal(x)
    rank = x.leading + len(x.shape)
    start, end = start_dim % rank, end_dim % rank
    if x.axes == "timed" and (start, end) == (0, 1):
        return Signal(x.sources, "folded", x.shape)
    if start == x.leading and end == rank - 1:
        return _flattened(recorder, x) if start < end else x
    raise Refused("NIR flattens all axes of an image, not some of them")


def _flattened(recorder: NodeRecorder, x: Signal) -> Signal:
    return recorder.append("flatten", x.sources, (math.prod(x.shape),), x.axes, "flatten")


def _unflatten(recorder: NodeRecorder, out: Tensor, x: Any, dim: int, sizes: Any) -> Signal:
    x = _signal(x)
    if x.axes == "folded" and dim == 0 and len(sizes) == 2 and len(out) == recorder.num_steps:
        return Signal(x.sources, "timed", x.shape)
    raise Refused("NIR has no node that unflattens an axis other than time")


def _repeat(recorder: NodeRecorder, out: Tensor, x: Any, *sizes: Any) -> Signal:
    """Repeat over time; a static signal is the same at every step already."""
    x = _signal(x)
    shape = (recorder.num_steps, out.shape[1], *x.shape) if out.dim() > 1 else ()
    if x.axes == "static" and out.shape == shape:
        return Signal(x.sources, "timed", x.shape)
    raise Refused("NIR has no node that repeats a signal along an axis other than time")


def _dropout(
    recorder: NodeRecorder,
    out: Tensor,
    x: Any,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Signal:
    if training:
        raise Refused("NIR has no random numbers, which dropout needs in training mode")
    return _signal(x)


_PRODUCT = _refuse("NIR has no product of two signals and no factors that differ between steps")
_MAKERS: Final[dict[str, Maker]] = {
    "conv2d": _convolution,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "add": _add,
    "iadd": _add,
    "radd": _add,
    "mean": _mean,
    "avg_pool2d": _mean_pool,
    "adaptive_avg_pool2d": _adaptive_mean_pool,
    "max_pool2d": _max_pool,
    "flatten": _flatten,
    "unflatten": _unflatten,
    "expand": _repeat,
    "dropout": _dropout,
    "to": _cast,
    "contiguous": _same,
    "clone": _same,
    "detach": _same,
    "mul": _PRODUCT,
    "imul": _PRODUCT,
    "rmul": _PRODUCT,
}
