"""The graph of a run: nodes, and signals between them."""

from dataclasses import dataclass, field
from typing import Any, Literal

Axes = Literal["static", "folded", "timed", "unknown"]
"""What stands before the axes of one image: [B], the same at every step; [T * B]; [T, B]. Unknown
after what was refused."""


class Refused(Exception):
    """NIR cannot say it; the message is why."""


class NoNode(Refused):
    """NIR cannot say it of any operands."""


@dataclass(eq=False)
class Node:
    """An operation of every step.

    Args:
        name: of the module that ran, and of the function where the module has others inside.
        kind: ``input``, ``conv``, ``linear``, ``lif``, ``mean_pool``, ``sum_pool``, ``threshold``,
            ``flatten``; ``refused``.
        inputs: the nodes whose outputs it takes, summed.
        shape: of its output, of one image and step.
        attributes: as :mod:`codingbench.export.operations` sets them; of ``refused`` the
            ``reason``.
    """

    name: str
    kind: str
    inputs: tuple["Node", ...]
    shape: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Signal:
    """A tensor of the run: the sum of what nodes put out."""

    sources: tuple[Node, ...]
    axes: Axes
    shape: tuple[int, ...]  # of one image and step

    @property
    def leading(self) -> int:
        """The number of axes before those of one image."""
        return 2 if self.axes == "timed" else 1
