"""What a network does with its input: one run, seen as a graph of operations.

Every public torch function that a run calls on what follows from the input becomes a node
(:mod:`codingbench.export.operations` says of which kind), and every neuron is one. Modules are not
asked what they are, so that any backbone is traced by what it computes.
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
from codingbench.export.signals import Axes, Node, NoNode, Refused, Signal

Start = Literal["code", "image"]


@dataclass(frozen=True)
class Trace:
    """A run: its graph, and what it gave.

    Args:
        nodes: those that the logits follow from, in the order of execution; names are unique.
        output: the nodes whose sum the logits are.
        start: what enters the graph.
        inputs: the values that entered, [T, B, ...].
        spikes: of each neuron by its node's name, [T, B, ...].
        logits: [T, B, K].
    """

    nodes: list[Node]
    output: tuple[Node, ...]
    start: Start
    inputs: Tensor
    spikes: dict[str, Tensor]
    logits: Tensor


def trace(network: Network, images: Tensor, generator: Generator) -> Trace:
    """Run the network on raw images [B, C, H, W] in evaluation mode, and see what it does.

    The graph begins at the code of a coding of pixels; of a coding of features, at the standardised
    image, which is the same at every step.
    """
    network.eval()
    tracer = Tracer(network)
    with torch.no_grad(), tracer.watching(), tracer:
        logits = network(images, generator)
    signal = tracer.signal_of(logits)
    output = signal.sources if signal else ()
    before = _all_before(output)
    nodes = [node for node in tracer.nodes if node in before]
    _make_unique(nodes)
    spikes = {node.name: spk for node, spk in tracer.spikes.items() if node in before}
    inputs, start = tracer.inputs, tracer.start
    if start == "image":
        inputs = inputs.expand(tracer.num_steps, *inputs.shape)
    return Trace(nodes, output, start, inputs, spikes, logits)


def _all_before(nodes: tuple[Node, ...]) -> set[Node]:
    found: set[Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.inputs
    return found


def _make_unique(nodes: list[Node]) -> None:
    """What runs again has a number behind its name."""
    taken: set[str] = set()
    for node in nodes:
        name, count = node.name, 1
        while node.name in taken:
            count += 1
            node.name = f"{name}_{count}"
        taken.add(node.name)


class Tracer(TorchFunctionMode):
    """Makes nodes while a network runs."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        encoder = network.encoder
        is_static = isinstance(encoder, FeatureEncoder)
        self.network = network
        self.num_steps = encoder.num_steps
        self.start: Start = "image" if is_static else "code"
        self.gate: nn.Module = encoder.stem if is_static else encoder.code
        self.inputs = torch.empty(0)
        self.nodes: list[Node] = []
        self.spikes: dict[Node, Tensor] = {}
        self._signals: dict[int, tuple[Tensor, Signal]] = {}  # held, so that an id stays its own
        self._running: list[tuple[str, nn.Module]] = []
        self._function = ""
        self._neurons_running = 0

    def signal_of(self, value: object) -> Signal | None:
        """What a tensor is; None if it does not follow from the input."""
        known = self._signals.get(id(value))
        return known[1] if known else None

    def append(
        self,
        kind: str,
        inputs: tuple[Node, ...],
        shape: tuple[int, ...],
        axes: Axes,
        suffix: str | None = None,
        **attributes: Any,
    ) -> Signal:
        """A new node, and what it puts out. It is named by the module that runs, and by ``suffix``
        or the function where that is no single layer."""
        name, module = self._running[-1]
        if suffix or any(True for _ in module.children()):
            name = f"{name}.{suffix or self._function}".removeprefix(".")
        node = Node(name, kind, inputs, tuple(shape), attributes)
        self.nodes.append(node)
        return Signal((node,), axes, node.shape)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, it is known which module of the network runs."""
        with ExitStack() as hooks:
            for name, module in self.network.named_modules():
                enter = module.register_forward_pre_hook(partial(self._enter, name))
                leave = module.register_forward_hook(self._leave)
                hooks.callback(enter.remove)
                hooks.callback(leave.remove)
            yield

    def _enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._running.append((name, module))
        self._neurons_running += isinstance(module, SpikingNeuron)
        if module is self.gate and not self.nodes:
            (self.inputs,) = args
            axes: Axes = "static" if self.start == "image" else "timed"
            shape = self.inputs.shape[1 if axes == "static" else 2 :]
            self.nodes.append(Node("input", "input", (), tuple(shape)))
            self._know(self.inputs, Signal((self.nodes[0],), axes, tuple(shape)))

    def _leave(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if isinstance(module, SpikingNeuron):
            self._neurons_running -= 1
            if not self._neurons_running:
                self._record("neuron", partial(neuron, module), args, {}, out)
        self._running.pop()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self._neurons_running:
            name = func.__name__.strip("_")
            self._record(name, maker_of(name), args, kwargs or {}, out)
        return out

    def _record(self, function: str, make: Maker, args: Any, kwargs: Any, out: Any) -> None:
        """What comes out follows from the input if anything that goes in does."""
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        given = tree_map(lambda leaf: self.signal_of(leaf) or leaf, (args, kwargs))
        signals = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Signal)]
        if not results or not signals:
            return
        self._function = function
        try:
            made = _call(make, self, out, *given[0], **given[1])
        except Refused as refusal:
            sources = tuple(dict.fromkeys(node for s in signals for node in s.sources))
            if isinstance(refusal, NoNode) or all(s.axes != "unknown" for s in signals):
                reason = {"reason": str(refusal)}
                made = self.append("refused", sources, (), "unknown", function, **reason)
            else:  # for want of knowing what it works on
                made = Signal(sources, "unknown", ())
        for tensor in results:
            self._know(tensor, made)
        if made.sources[0].kind == "lif" and function == "neuron":
            self.spikes[made.sources[0]] = out

    def _know(self, tensor: Tensor, signal: Signal) -> None:
        self._signals[id(tensor)] = tensor, signal


def _call(make: Maker, *args: Any, **kwargs: Any) -> Signal:
    try:
        inspect.signature(make).bind(*args, **kwargs)
    except TypeError as error:
        raise Refused(f"NIR has no node for it with these arguments: {error}") from error
    return make(*args, **kwargs)
