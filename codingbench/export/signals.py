"""The data types of a traced run: nodes, the signals between them, and the recorder of both."""

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

Axes = Literal["static", "folded", "timed", "unknown"]
"""The axes in front of those of one image.

``static``: [B], the same values at every step; ``folded``: [T * B]; ``timed``: [T, B]; ``unknown``:
the signal comes from an operation that was refused.
"""


class Refused(Exception):
    """The network cannot be expressed in NIR; the message says why."""


class NoNode(Refused):
    """NIR has no node for this operation, whatever its operands."""


@dataclass(eq=False)
class Node:
    """An operation that runs at every step.

    Args:
        name: name of the module that ran it, followed by the function's name if the module has
            submodules.
        kind: ``input``, ``conv``, ``linear``, ``lif``, ``mean_pool``, ``sum_pool``, ``threshold``,
            ``flatten`` or ``refused``.
        inputs: nodes whose outputs are summed to give its input.
        shape: shape of its output for one image and one step.
        attributes: parameters as set by :mod:`codingbench.export.operations`; for ``refused``, the
            ``reason``.
    """

    name: str
    kind: str
    inputs: tuple["Node", ...]
    shape: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Signal:
    """A tensor of the run: the sum of the outputs of its ``sources``."""

    sources: tuple[Node, ...]
    axes: Axes
    shape: tuple[int, ...]  # of one image at one step

    @property
    def leading(self) -> int:
        """The number of axes in front of those of one image."""
        return 2 if self.axes == "timed" else 1


class NodeRecorder:
    """Collects the nodes of a run and names them after the module that is running.

    Attributes:
        num_steps: T.
        nodes: the nodes in the order of execution.
        running: names and modules of the forward passes in progress, the innermost last.
        function: name of the torch function that is being recorded.
    """

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self.nodes: list[Node] = []
        self.running: list[tuple[str, nn.Module]] = []
        self.function = ""

    def append(
        self,
        kind: str,
        inputs: tuple[Node, ...],
        shape: tuple[int, ...],
        axes: Axes,
        suffix: str | None = None,
        **attributes: Any,
    ) -> Signal:
        """Record a new node and return the signal that it emits.

        The node has the name of the running module. ``suffix`` is added to it if given, and the
        name of the function if the module has submodules.
        """
        name, module = self.running[-1]
        if suffix or any(True for _ in module.children()):
            name = f"{name}.{suffix or self.function}".removeprefix(".")
        node = Node(name, kind, inputs, tuple(shape), attributes)
        self.nodes.append(node)
        return Signal((node,), axes, node.shape)
