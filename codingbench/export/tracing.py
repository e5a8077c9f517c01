"""Trace one run of a network into a graph of operations.

Each public torch function that the run calls on a tensor derived from the input becomes a node
(:mod:`codingbench.export.operations` defines its kind), and so does each neuron. Tracing looks at
the computation and not at the types of the modules, so that any backbone can be traced.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from snntorch._neurons.neurons import SpikingNeuron
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from codingbench.backbone import Network
from codingbench.encoder import FeatureEncoder
from codingbench.export.operations import Maker, maker_of, neuron
from codingbench.export.signals import Axes, Node, NodeRecorder, NoNode, Refused, Signal

Start = Literal["code", "image"]


@dataclass(frozen=True)
class Trace:
    """The graph of one run, and its results.

    Args:
        nodes: nodes that the logits depend on, in the order of execution; names are unique.
        output: nodes whose outputs sum to the logits.
        start: what the input of the graph is.
        inputs: values of that input, [T, B, ...].
        spikes: spikes of each neuron layer, [T, B, ...], by the name of its node.
        logits: [T, B, K].
    """

    nodes: list[Node]
    output: tuple[Node, ...]
    start: Start
    inputs: Tensor
    spikes: dict[str, Tensor]
    logits: Tensor


def trace(network: Network, images: Tensor, generator: Generator) -> Trace:
    """Run the network on raw images [B, C, H, W] in evaluation mode and record its operations.

    The graph starts at the code of a pixel encoder. For a feature encoder it starts at the
    standardised image, which is the same at every step.
    """
    network.eval()
    tracer = Tracer(network)
    with torch.no_grad(), tracer.watching(), tracer:
        logits = network(images, generator)
    signal = tracer.signal_of(logits)
    output = signal.sources if signal else ()
    needed = _ancestors(output)
    nodes = [node for node in tracer.recorder.nodes if node in needed]
    _make_unique(nodes)
    spikes = {node.name: spk for node, spk in tracer.spikes.items() if node in needed}
    inputs, start = tracer.inputs, tracer.start
    if start == "image":
        inputs = inputs.expand(tracer.recorder.num_steps, *inputs.shape)
    return Trace(nodes, output, start, inputs, spikes, logits)


def _ancestors(nodes: tuple[Node, ...]) -> set[Node]:
    """The nodes themselves and all nodes that they depend on."""
    found: set[Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.inputs
    return found


def _make_unique(nodes: list[Node]) -> None:
    """Append a number to the names of nodes whose module ran more than once."""
    taken: set[str] = set()
    for node in nodes:
        name, count = node.name, 1
        while node.name in taken:
            count += 1
            node.name = f"{name}_{count}"
        taken.add(node.name)


class Tracer(TorchFunctionMode):
    """Records nodes while a network runs."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        encoder = network.encoder
        is_static = isinstance(encoder, FeatureEncoder)
        self.network = network
        self.recorder = NodeRecorder(encoder.num_steps)
        self.start: Start = "image" if is_static else "code"
        self.gate: nn.Module = encoder.stem if is_static else encoder.code
        self.inputs = torch.empty(0)
        self.spikes: dict[Node, Tensor] = {}
        # The tensors are kept alive: Python would give the id of a deleted one to another.
        self._signals: dict[int, tuple[Tensor, Signal]] = {}
        self._neurons_running = 0

    def signal_of(self, value: object) -> Signal | None:
        """Return the signal of a tensor; None if the tensor does not depend on the input."""
        known = self._signals.get(id(value))
        return known[1] if known else None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within this context, keep track of which module of the network is running."""
        with ExitStack() as hooks:
            for name, module in self.network.named_modules():
                enter = module.register_forward_pre_hook(partial(self._enter, name))
                leave = module.register_forward_hook(self._leave)
                hooks.callback(enter.remove)
                hooks.callback(leave.remove)
            yield

    def _enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.recorder.running.append((name, module))
        self._neurons_running += isinstance(module, SpikingNeuron)
        if module is self.gate and not self.recorder.nodes:
            (self.inputs,) = args
            axes: Axes = "static" if self.start == "image" else "timed"
            shape = tuple(self.inputs.shape[1 if axes == "static" else 2 :])
            source = Node("input", "input", (), shape)
            self.recorder.nodes.append(source)
            self._remember(self.inputs, Signal((source,), axes, shape))

    def _leave(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if isinstance(module, SpikingNeuron):
            self._neurons_running -= 1
            if not self._neurons_running:
                self._record("neuron", partial(neuron, module), args, {}, out)
        self.recorder.running.pop()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self._neurons_running:
            name = func.__name__.strip("_")
            self._record(name, maker_of(name), args, kwargs or {}, out)
        return out

    def _record(self, function: str, make: Maker, args: Any, kwargs: Any, out: Any) -> None:
        """Record a call, unless none of its arguments depends on the input."""
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        given = tree_map(lambda leaf: self.signal_of(leaf) or leaf, (args, kwargs))
        signals = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Signal)]
        if not results or not signals:
            return
        self.recorder.function = function
        try:
            made = _call(make, self.recorder, out, *given[0], **given[1])
        except Refused as refusal:
            made = self._refused(refusal, signals)
        for tensor in results:
            self._remember(tensor, made)
        if made.sources[0].kind == "lif" and function == "neuron":
            self.spikes[made.sources[0]] = out

    def _refused(self, refusal: Refused, signals: list[Signal]) -> Signal:
        """Return the signal of a refused operation.

        If an operand is itself unknown, only the refusal that made it unknown is recorded.
        """
        sources = tuple(dict.fromkeys(node for s in signals for node in s.sources))
        if not isinstance(refusal, NoNode) and any(s.axes == "unknown" for s in signals):
            return Signal(sources, "unknown", ())
        reason = {"reason": str(refusal)}
        function = self.recorder.function
        return self.recorder.append("refused", sources, (), "unknown", function, **reason)

    def _remember(self, tensor: Tensor, signal: Signal) -> None:
        self._signals[id(tensor)] = tensor, signal


def _call(make: Maker, *args: Any, **kwargs: Any) -> Signal:
    try:
        inspect.signature(make).bind(*args, **kwargs)
    except TypeError as error:
        raise Refused(f"NIR has no node for it with these arguments: {error}") from error
    return make(*args, **kwargs)
