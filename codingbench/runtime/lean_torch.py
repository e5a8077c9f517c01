"""Use of torch without its compiler, whose import takes seconds and opens a thousand files."""

import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import torch


class Steps(Protocol):
    """An optimizer of torch, or several that step together."""

    def step(self) -> Any:
        """Update the parameters."""


def set_deterministic(mode: int) -> None:
    """Set torch's use of deterministic algorithms: 0 is off, 1 warns and 2 raises otherwise.

    ``torch.use_deterministic_algorithms`` also tells torch's compiler, for which it imports it.
    Here the compiler is only told if it has been imported; see :func:`tell_compiler`.
    """
    torch.set_deterministic_debug_mode(mode)
    if "torch._inductor.config" in sys.modules:
        tell_compiler()


def tell_compiler() -> None:
    """Let code that is compiled from now on be as deterministic as everything else."""
    torch.use_deterministic_algorithms(
        torch.are_deterministic_algorithms_enabled(),
        warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def spare_compiler(*classes: type) -> None:
    """Let methods of classes run without torch's compiler as long as nothing is compiled.

    Such methods exclude themselves from compilation, for which their first call imports the
    compiler. They are excluded as before once something else has imported it. A torch that does not
    know the attribute set here imports its compiler at once.
    """
    for cls in () if "torch._dynamo" in sys.modules else classes:
        for method in vars(cls).values():
            excluded = getattr(method, "__wrapped__", None)
            if excluded is not None and not hasattr(excluded, "__dynamo_disable"):
                excluded.__dynamo_disable = _while_nothing_compiles(method, excluded)


def _while_nothing_compiles(
    method: Callable[..., Any], excluded: Callable[..., Any]
) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return excluded(*args, **kwargs)
        with suppress(AttributeError):  # another thread was first
            del excluded.__dynamo_disable  # type: ignore[attr-defined]
        return method(*args, **kwargs)  # which excludes itself

    return call


@torch.no_grad()
def take_step(optimizer: Steps) -> None:
    """Update the parameters as ``optimizer.step()`` does, without its hooks.

    The decorator of ``step`` imports torch's compiler in order to break a compiled graph there.
    """
    inspect.unwrap(type(optimizer).step)(optimizer)
