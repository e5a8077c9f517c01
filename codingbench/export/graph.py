"""Convert a traced run into a NIR graph.

NIR's LIF neuron is defined in continuous time:

    tau dv/dt = (v_leak - v) + r I;   where v > v_threshold, spike and set v = v_reset.

A forward Euler step of length dt, which snntorch's export and import also use, gives

    v[t] = v[t-1] + dt / tau ((v_leak - v[t-1]) + r I[t])
         = beta v[t-1] + I[t]       with  tau = dt / (1 - beta),  r = tau / dt,  v_leak = 0

With v_reset = 0 this is the neuron of :mod:`codingbench.neurons`. Batch norm is folded into the
weights in double precision, and parameters are written in double precision, because a rounding
error at the threshold adds or removes a spike.

Source: Pedersen et al., "Neuromorphic intermediate representation: a unified instruction set for
interoperable brain-inspired computing", Nature Communications 15 (2024) 8122.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import nir
import numpy as np
from torch import Tensor

from codingbench.export.operations import pair
from codingbench.export.signals import Node, Refused
from codingbench.export.tracing import Trace

DT: Final = 1e-4
"""Duration of a time step in seconds, as in snntorch.

NIR has no field for it, so it is written into the metadata."""

OUTPUT: Final = "output"

STARTS: Final = {
    "code": "the encoder's spikes of every step; the encoder itself is not part of the graph",
    "image": "the image, standardised as (x - mean) / std per channel, the same at every step",
}
"""Descriptions of the input of the graph at each step, written into the metadata."""


def graph_of(trace: Trace, about: Mapping[str, Any]) -> nir.NIRGraph:
    """Return the graph of a run, with ``about`` and the convention above as metadata.

    Raises:
        Refused: the run contains an operation that NIR cannot express. The message names the last
            one.
    """
    refused = [node for node in trace.nodes if node.kind == "refused"]
    if refused:
        raise Refused(f"{refused[-1].name}: {refused[-1].attributes['reason']}")
    if not any(node.kind == "input" for node in trace.nodes):
        raise Refused("the logits do not depend on the input through public torch functions")
    nodes = {node.name: _MAKERS[node.kind](node) for node in trace.nodes}
    edges = [(source.name, node.name) for node in trace.nodes for source in node.inputs]
    nodes[OUTPUT] = nir.Output({"output": np.array(trace.output[0].shape)})
    edges += [(source.name, OUTPUT) for source in trace.output]
    try:
        return nir.NIRGraph(nodes, edges, {**about, **_convention(trace)})
    except ValueError as error:
        raise Refused(f"NIR refuses the graph: {error}") from error


def _convention(trace: Trace) -> dict[str, str | int | float]:
    return {
        "input": STARTS[trace.start],
        "output": "logits of every step; the largest mean over the steps gives the prediction",
        "num_steps": len(trace.inputs),
        "dt": DT,
        "discretisation": (
            "forward Euler with step dt: v[t] = v[t-1] + dt/tau ((v_leak - v[t-1]) + r I[t]); "
            "where v[t] > v_threshold (strictly), a neuron spikes and v[t] = v_reset; "
            "v = 0 before the first step; "
            "all layers are evaluated within each step, without delay"
        ),
    }


def _array(values: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = values.detach().double().numpy()
    return array


def _conv(node: Node) -> nir.Conv2d:
    of, padding = node.attributes, node.attributes["padding"]
    return nir.Conv2d(
        input_shape=node.inputs[0].shape[1:],
        weight=_array(of["weight"]),
        stride=pair(of["stride"]),
        padding=padding if isinstance(padding, str) else pair(padding),
        dilation=pair(of["dilation"]),
        groups=1,
        bias=_array(of["bias"]),
    )


def _linear(node: Node) -> nir.Affine:
    return nir.Affine(_array(node.attributes["weight"]), _array(node.attributes["bias"]))


def _lif(node: Node) -> nir.LIF:
    beta = _expanded(node.attributes["beta"], node)
    r = 1 / (1 - beta)
    threshold = _expanded(node.attributes["threshold"], node)
    zero = np.zeros_like(beta)
    return nir.LIF(tau=DT * r, r=r, v_leak=zero, v_threshold=threshold, v_reset=zero)


def _expanded(values: Tensor, node: Node) -> np.ndarray[Any, Any]:
    """Return one value for each neuron."""
    return np.broadcast_to(_array(values), node.shape).copy()


def _threshold(node: Node) -> nir.Threshold:
    return nir.Threshold(_expanded(node.attributes["threshold"], node))


def _pool(kind: Callable[..., Any]) -> Callable[[Node], Any]:
    return lambda node: kind(**{name: np.array(pair(v)) for name, v in node.attributes.items()})


_MAKERS: Final[dict[str, Callable[[Node], Any]]] = {
    "input": lambda node: nir.Input({"input": np.array(node.shape)}),
    "conv": _conv,
    "linear": _linear,
    "lif": _lif,
    "mean_pool": _pool(nir.AvgPool2d),
    "sum_pool": _pool(nir.SumPool2d),
    "threshold": _threshold,
    "flatten": lambda node: nir.Flatten({"input": np.array(node.inputs[0].shape)}, 0, -1),
}
