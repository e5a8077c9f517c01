"""Execute a NIR graph by the definitions of NIR alone, independently of the exported network.

nirtorch is not used because version 2.6 ignores the bias of Affine, and flattens the batch axis
together with the image.
"""

from collections.abc import Callable, Sequence
from graphlib import TopologicalSorter
from typing import Any, Final

import nir
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def execute(graph: nir.NIRGraph, inputs: Tensor, dt: float) -> dict[str, Tensor]:
    """Return the outputs [T, B, ...] of all nodes by name, in the precision of the inputs.

    Signals that enter a node by several edges are summed. All nodes of a step are evaluated in that
    step, so the graph must not have cycles. Neurons start from v = 0 and are integrated by forward
    Euler steps of length ``dt``.

    Args:
        graph: a graph with exactly one input.
        inputs: [T, B, ...].
        dt: duration of a step in seconds.

    Raises:
        ValueError: the graph has a cycle, no input or several inputs, or a node of a type that is
            not supported here.
    """
    if len(graph.inputs) != 1:
        raise ValueError(f"the graph must have one input, got {', '.join(graph.inputs) or 'none'}")
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        sources[target].append(source)
    outputs: dict[str, Tensor] = {}
    for name in TopologicalSorter(sources).static_order():
        node, given = graph.nodes[name], [outputs[source] for source in sources[name]]
        if isinstance(node, nir.Input):
            outputs[name] = inputs
        elif type(node) in _RULES:
            outputs[name] = _RULES[type(node)](node, sum(given[1:], given[0]), dt)
        else:
            raise ValueError(f"{name} is a {type(node).__name__}, which is not supported")
    return outputs


def _at_every_step(rule: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor, float], Tensor]:
    """Make the rule of a stateless node, which may see the steps folded into the batch."""

    def run(node: Any, x: Tensor, dt: float) -> Tensor:
        y: Tensor = rule(node, x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return y

    return run


def _lif(node: nir.LIF, cur: Tensor, dt: float) -> Tensor:
    """Integrate tau dv/dt = (v_leak - v) + r I; where v > v_threshold, spike and reset v."""
    tau, r, v_leak, v_threshold, v_reset = (
        _tensor(values, cur)
        for values in (node.tau, node.r, node.v_leak, node.v_threshold, node.v_reset)
    )
    v, spikes = torch.zeros_like(cur[0]), torch.empty_like(cur)
    for t, current in enumerate(cur):
        v = v + dt / tau * ((v_leak - v) + r * current)
        spikes[t] = v > v_threshold
        v = torch.where(v > v_threshold, v_reset, v)
    return spikes


def _conv(node: nir.Conv2d, x: Tensor) -> Tensor:
    padding = node.padding if isinstance(node.padding, str) else _ints(node.padding)
    weight, bias = _tensor(node.weight, x), _tensor(node.bias, x)
    stride, dilation = _ints(node.stride), _ints(node.dilation)
    return F.conv2d(x, weight, bias, stride, padding, dilation, int(node.groups))


def _mean_pool(node: nir.AvgPool2d, x: Tensor) -> Tensor:
    return F.avg_pool2d(x, _ints(node.kernel_size), _ints(node.stride), _ints(node.padding))


def _sum_pool(node: nir.SumPool2d, x: Tensor) -> Tensor:
    size, padding = _ints(node.kernel_size), _ints(node.padding)
    return F.avg_pool2d(x, size, _ints(node.stride), padding, divisor_override=1)


def _flatten(node: nir.Flatten, x: Tensor) -> Tensor:
    """Flatten each image: the axes of a NIR node do not include the batch."""
    start, end = (int(d) + 1 if d >= 0 else int(d) for d in (node.start_dim, node.end_dim))
    return x.flatten(start, end)


def _tensor(values: np.ndarray[Any, Any], like: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(values)).to(like.dtype)


def _ints(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


_RULES: Final[dict[type, Callable[[Any, Tensor, float], Tensor]]] = {
    nir.LIF: _lif,
    nir.Conv2d: _at_every_step(_conv),
    nir.Affine: _at_every_step(lambda n, x: F.linear(x, _tensor(n.weight, x), _tensor(n.bias, x))),
    nir.AvgPool2d: _at_every_step(_mean_pool),
    nir.SumPool2d: _at_every_step(_sum_pool),
    nir.Threshold: _at_every_step(lambda n, x: (x > _tensor(n.threshold, x)).to(x.dtype)),
    nir.Flatten: _at_every_step(_flatten),
    nir.Output: lambda node, x, dt: x,
}
