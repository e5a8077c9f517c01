"""Detection of Python state that changes from call to call, which a CUDA graph cannot repeat.

A graph only repeats kernels. A network that counts its calls in Python, draws numbers with Python's
``random`` or replaces a tensor by a new one would always repeat the call that was captured.
"""

import random
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class HostState:
    """A snapshot of a network's Python attributes and of the host's random generators."""

    def __init__(self, network: nn.Module) -> None:
        numpy_state: Any = np.random.get_state()
        self._values: dict[str, Any] = {
            "it draws from torch's generator on the CPU": torch.get_rng_state().numpy().tobytes(),
            "it draws from Python's random module": _python_draws(),
            "it draws from NumPy's global generator": (numpy_state[1].tobytes(), numpy_state[2]),
        }
        for path, module in network.named_modules():
            for name, value in {**vars(module), **module._buffers}.items():
                place = f"{path}.{name}".lstrip(".")
                self._values[f"a call changes its attribute {place!r}"] = _comparable(value)

    def difference(self, later: "HostState") -> str | None:
        """Return a clause that describes the first difference, or None if there is none."""
        for what in {**self._values, **later._values}:
            before, after = self._values.get(what, _ABSENT), later._values.get(what, _ABSENT)
            if before is not after and not _are_equal(before, after):
                return what
        return None


_ABSENT = object()


def _python_draws() -> Any:
    return random.getstate()


def _comparable(value: Any) -> Any:
    """Return what is compared: numbers, text and tensors themselves; the length of containers."""
    if isinstance(value, Tensor):
        return value if value.numel() else None
    if isinstance(value, list | dict | set | deque):
        return len(value)
    return value if isinstance(value, bool | int | float | complex | str | bytes) else None


def _are_equal(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor) or isinstance(after, Tensor):
        return False
    return bool(before == after)
