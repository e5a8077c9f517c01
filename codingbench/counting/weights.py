"""Tells a network's weights from what flows through it."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


class WeightTracker:
    """Knows the parameters and buffers of a network, and what is computed from them alone."""

    def __init__(self, network: nn.Module) -> None:
        self._parameters = {_storage(p) for p in network.parameters()}
        self._buffers = {_storage(b) for b in network.buffers()} - self._parameters
        self._derived: dict[int, Tensor] = {}  # holds them, or their addresses would be reused

    def owns(self, x: Tensor) -> bool:
        """Whether ``x`` is a parameter, a view of one, or computed from weights alone."""
        return _storage(x) in self._parameters or _storage(x) in self._derived

    def is_constant(self, x: Tensor) -> bool:
        """Whether ``x`` is a number or a buffer: arithmetic with it can be folded away."""
        return (x.dim() == 0 and not self.owns(x)) or _storage(x) in self._buffers

    def derives(self, args: Iterable[Any], output: Any) -> bool:
        """Whether an operation saw weights alone; its results are weights from then on."""
        owned = False
        for x in _tensors(args):
            if self.owns(x):
                owned = True
            elif _storage(x) not in self._buffers:
                return False
        if owned:
            self._derived |= {_storage(result): result for result in _tensors((output,))}
        return owned

    def forget_derived(self) -> None:
        """What was computed from weights is computed anew in the next batch."""
        self._derived.clear()

    def any_matrix(self, args: Iterable[Any]) -> bool:
        """Whether a weight with more than one axis is among the arguments."""
        return any(x.dim() > 1 and self.owns(x) for x in _tensors(args))

    @staticmethod
    def has_matrix(module: nn.Module) -> bool:
        """Whether the module itself holds a weight with more than one axis, to multiply with."""
        if isinstance(module, _NORMS):
            return False
        return any(p.dim() > 1 for p in module.parameters(recurse=False))


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors among the values and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()
