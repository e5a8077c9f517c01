"""Which torch functions are which nodes, and what NIR cannot say of the others.

Each maker takes the tracer, what came out, and the arguments of the torch function with signals in
the place of tensors that follow from the input. It returns what came out as a signal, or refuses.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from codingbench.export.signals import Axes, NoNode, Refused, Signal
from codingbench.neurons import MultiStepLeaky, is_known_binary

if TYPE_CHECKING:
    from codingbench.export.tracing import Tracer

Maker = Callable[..., Signal]
Pair = int | Sequence[int]


def maker_of(function: str) -> Maker:
    """What makes the node of the torch function of that name."""
    return _MAKERS.get(function, _refuse("NIR has no node for it"))


def neuron(module: nn.Module, run: "Tracer", out: Tensor, cur: Any) -> Signal:
    """A LIF that resets to zero at the step of the spike.

    Raises:
        Refused: it does otherwise.
    """
    cur = _signal(cur)
    if not isinstance(module, MultiStepLeaky):
        raise Refused("a neuron that is called step by step is not followed; MultiStepLeaky is")
    if not is_known_binary(module):
        raise Refused("NIR's LIF has no inhibition, quantised state or graded spike")
    if module.reset_mechanism != "zero":
        reset = module.reset_mechanism
        raise Refused(f"NIR's LIF resets to a value, this neuron's reset is {reset!r}")
    if module.reset_delay:
        raise Refused("NIR's LIF resets at the step of the spike, this neuron one step later")
    if cur.axes != "timed":
        raise Refused("a neuron that runs over other axes than the time steps")
    beta = module.beta.clamp(0, 1)
    if (beta == 1).any():
        raise Refused("NIR's LIF has a time constant, which no neuron without leak (beta = 1) has")
    values = {"beta": beta, "threshold": module.threshold}
    return run.append("lif", cur.sources, cur.shape, "timed", **values)


def _refuse(reason: str) -> Maker:
    def make(*args: Any, **kwargs: Any) -> Signal:
        raise NoNode(reason)

    return make


def _same(run: "Tracer", out: Any, x: Any, *args: Any, **kwargs: Any) -> Signal:
    return _signal(x)


def _cast(run: "Tracer", out: Tensor, x: Any, *args: Any, **kwargs: Any) -> Signal:
    if not out.is_floating_point():
        raise Refused("NIR has one kind of number")
    return _signal(x)


def _signal(x: Any) -> Signal:
    if not isinstance(x, Signal):
        raise Refused("of its operands one that should be a signal is a constant")
    return x


def _per_image(x: Any) -> Signal:
    """A signal as a stateless layer must see it: its first axis that of the batch."""
    signal = _signal(x)
    if signal.axes == "timed":
        raise Refused("time steps must be folded into the batch: over_time")
    return signal


def _convolution(
    run: "Tracer",
    out: Tensor,
    x: Any,
    weight: Any,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: str | Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Signal:
    x = _per_image(x)
    if isinstance(weight, Signal):
        raise Refused("NIR has no weights that are signals")
    if groups != 1:
        raise Refused("NIR gives a convolution in groups a wrong type")
    geometry: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    weights = {"weight": weight, "bias": _or_zeros(bias, weight)}
    return run.append("conv", x.sources, out.shape[1:], x.axes, **weights, **geometry)


def _linear(run: "Tracer", out: Tensor, x: Any, weight: Any, bias: Tensor | None = None) -> Signal:
    x = _signal(x)
    if isinstance(weight, Signal):
        raise Refused("NIR has no weights that are signals")
    if len(x.shape) != 1:
        raise Refused("NIR's linear layer takes one vector per image and step")
    weights = {"weight": weight, "bias": _or_zeros(bias, weight)}
    return run.append("linear", x.sources, out.shape[x.leading :], x.axes, **weights)


def _or_zeros(bias: Tensor | None, weight: Tensor) -> Tensor:
    return weight.new_zeros(len(weight)) if bias is None else bias


def _batch_norm(
    run: "Tracer",
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
    """Folded into the layer before:  w' = g w,  b' = g (b - mean) + bias,  g = weight / std."""
    x = _per_image(x)
    if training or mean is None or var is None:
        raise Refused("NIR has no batch, whose statistics this batch norm takes")
    layer, *others = x.sources
    if others or layer.kind not in ("conv", "linear"):
        raise Refused(
            "NIR has no batch norm, and before this one there is no layer to fold it into"
        )
    gain = torch.rsqrt(var + eps) * (1 if weight is None else weight)
    kernel = layer.attributes["weight"]
    folded = {
        "weight": kernel * gain.reshape(-1, *[1] * (kernel.dim() - 1)),
        "bias": gain * (layer.attributes["bias"] - mean) + (0 if bias is None else bias),
    }
    made = run.append(layer.kind, layer.inputs, layer.shape, x.axes, **layer.attributes | folded)
    made.sources[0].name = layer.name
    return made


def _add(run: "Tracer", out: Tensor, x: Any, y: Any, alpha: float = 1) -> Signal:
    """No node: what several edges bring to a node is summed."""
    if not (isinstance(x, Signal) and isinstance(y, Signal)):
        raise Refused("NIR sums signals, and one of these two is a constant")
    is_mixed = x.axes != y.axes and "folded" in (x.axes, y.axes)
    if alpha != 1 or x.shape != y.shape or is_mixed:
        raise Refused("NIR sums signals of one shape, each with factor 1")
    if set(x.sources) & set(y.sources):
        raise Refused("NIR has one edge at most between two nodes: a signal is in this sum twice")
    axes: Axes = "timed" if "timed" in (x.axes, y.axes) else x.axes
    return Signal(x.sources + y.sources, axes, x.shape)


def _mean(run: "Tracer", out: Tensor, x: Any, dim: Any = None, keepdim: bool = False) -> Signal:
    """Over all positions: a pool of the image's size, and its one position taken away."""
    x = _signal(x)
    given = (dim,) if isinstance(dim, int) else tuple(dim or ())
    axes = {axis % (x.leading + len(x.shape)) for axis in given}
    if len(x.shape) != 3 or axes != {x.leading + 1, x.leading + 2}:
        raise Refused("NIR has a mean over all positions, not over other axes")
    pooled = _pool(run, "mean_pool", x, x.shape[1:], x.shape[1:], 0, (x.shape[0], 1, 1))
    return pooled if keepdim else _flattened(run, pooled)


def _mean_pool(
    run: "Tracer",
    out: Tensor,
    x: Any,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Signal:
    x = _per_image(x)
    if ceil_mode or divisor_override or (any(pair(padding)) and not count_include_pad):
        raise Refused("NIR's mean pooling divides by the kernel's size and leaves out what is over")
    return _pool(run, "mean_pool", x, kernel_size, stride, padding, out.shape[1:])


def _adaptive_mean_pool(run: "Tracer", out: Tensor, x: Any, output_size: Any) -> Signal:
    x = _per_image(x)
    sizes = list(zip(x.shape[1:], out.shape[2:], strict=True))
    if any(before % after for before, after in sizes):
        raise Refused("NIR's mean pooling has windows of one size")
    kernel_size = [before // after for before, after in sizes]
    return _pool(run, "mean_pool", x, kernel_size, None, 0, out.shape[1:])


def _max_pool(
    run: "Tracer",
    out: Tensor,
    x: Any,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Signal:
    """Of the spikes of one neuron, whether there are any: their sum is above 1/2."""
    x = _per_image(x)
    if [node.kind for node in x.sources] not in (["lif"], ["threshold"]):
        raise Refused("NIR has no maximum, and this one is not over the spikes of one layer")
    if ceil_mode or return_indices or any(step != 1 for step in pair(dilation)):
        raise Refused("NIR's pooling has no dilation, indices, or windows over the edge")
    total = _pool(run, "sum_pool", x, kernel_size, stride, padding, out.shape[1:])
    half = {"threshold": torch.tensor(0.5)}
    return run.append("threshold", total.sources, total.shape, x.axes, "any", **half)


def _pool(
    run: "Tracer",
    kind: str,
    x: Signal,
    kernel_size: Pair,
    stride: Pair | None,
    padding: Pair,
    shape: tuple[int, ...],
) -> Signal:
    windows = {"kernel_size": kernel_size, "stride": stride or kernel_size, "padding": padding}
    return run.append(kind, x.sources, shape, x.axes, kind, **windows)


def pair(value: Pair) -> tuple[int, int]:
    """One number for both directions, or two."""
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


def _flatten(run: "Tracer", out: Tensor, x: Any, start_dim: int = 0, end_dim: int = -1) -> Signal:
    x = _signal(x)
    rank = x.leading + len(x.shape)
    start, end = start_dim % rank, end_dim % rank
    if x.axes == "timed" and (start, end) == (0, 1):
        return Signal(x.sources, "folded", x.shape)
    if start == x.leading and end == rank - 1:
        return _flattened(run, x) if start < end else x
    raise Refused("NIR flattens the axes of one image, all of them")


def _flattened(run: "Tracer", x: Signal) -> Signal:
    return run.append("flatten", x.sources, (math.prod(x.shape),), x.axes, "flatten")


def _unflatten(run: "Tracer", out: Tensor, x: Any, dim: int, sizes: Any) -> Signal:
    x = _signal(x)
    if x.axes == "folded" and dim == 0 and len(sizes) == 2 and len(out) == run.num_steps:
        return Signal(x.sources, "timed", x.shape)
    raise Refused("NIR has no node for other axes than time steps unfolded from the batch")


def _repeat(run: "Tracer", out: Tensor, x: Any, *sizes: Any) -> Signal:
    """The same at every step, which a static signal is by itself."""
    x = _signal(x)
    shape = (run.num_steps, out.shape[1], *x.shape) if out.dim() > 1 else ()
    if x.axes == "static" and out.shape == shape:
        return Signal(x.sources, "timed", x.shape)
    raise Refused("NIR has no node for repeating other axes than time steps")


def _dropout(
    run: "Tracer", out: Tensor, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Signal:
    if training:
        raise Refused("NIR has no chance")
    return _signal(x)


_PRODUCT = _refuse("NIR has no product of two signals, nor factors that differ between the steps")
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
