"""Distinguish the weights of a network from its activations."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from codingbench.counting.traces import tensors

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


class WeightTracker:
    """Tracks the parameters and buffers of a network, and tensors computed from them alone."""

    def __init__(self, network: nn.Module) -> None:
        self._parameters = {_storage(p) for p in network.parameters()}
        self._buffers = {_storage(b) for b in network.buffers()} - self._parameters
        self._derived: dict[
            int, Tensor
        ] = {}  # keeps them alive, or their addresses would be reused
        self._created: dict[int, Tensor] = {}  # likewise

    def owns(self, x: Tensor) -> bool:
        """Return whether ``x`` is a parameter, a view of one, or computed from weights alone."""
        return _storage(x) in self._parameters or _storage(x) in self._derived

    def is_constant(self, x: Tensor) -> bool:
        """Return whether ``x`` is a number or a buffer, whose arithmetic can be folded away."""
        return (x.dim() == 0 and not self.owns(x)) or _storage(x) in self._buffers

    def derives(self, args: Iterable[Any], output: Any) -> bool:
        """Return whether an operation has only weights as arguments; its results become weights."""
        owned = False
        for x in tensors(args):
            if self.owns(x):
                owned = True
            elif _storage(x) not in self._buffers:
                return False
        if owned:
            self._derived |= {_storage(result): result for result in tensors((output,))}
        return owned

    def creates(self, func: Any, args: Iterable[Any], output: Any) -> bool:
        """Return whether the results depend on no image, weight or random number.

        Such are ``torch.arange(n)`` and what is computed from it alone, and from buffers. A tensor
        that an operation then writes other values into is no longer one of them.
        """
        given, results = list(tensors(args)), list(tensors((output,)))
        is_random = torch.Tag.nondeterministic_seeded in func.tags
        is_new = not is_random and (not given or any(map(self._is_created, given)))
        if is_new and all(self._is_created(x) or _storage(x) in self._buffers for x in given):
            self._created |= {_storage(x): x for x in results}
            return True
        for x in results:
            self._created.pop(_storage(x), None)
        return False

    def _is_created(self, x: Tensor) -> bool:
        return _storage(x) in self._created

    def forget_derived(self) -> None:
        """Forget what was computed without images; the next batch computes it again."""
        self._derived.clear()
        self._created.clear()

    def owns_any(self, args: Iterable[Any]) -> bool:
        """Return whether the arguments include a weight."""
        return any(self.owns(x) for x in tensors(args))

    def any_matrix(self, args: Iterable[Any]) -> bool:
        """Return whether the arguments include a weight with more than one axis."""
        return any(x.dim() > 1 and self.owns(x) for x in tensors(args))

    def parameters(self, args: Iterable[Any]) -> tuple[int, ...]:
        """Return what tells the parameters among the arguments from others."""
        return tuple(_storage(x) for x in tensors(args) if _storage(x) in self._parameters)

    @staticmethod
    def has_matrix(module: nn.Module) -> bool:
        """Return whether the module itself multiplies with a weight of more than one axis."""
        if isinstance(module, _NORMS):
            return False
        return any(p.dim() > 1 for p in module.parameters(recurse=False))


def _storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr() if x.layout is torch.strided else id(x)
