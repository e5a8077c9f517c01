"""The implementations of the steps of :mod:`codingbench.neurons.recurrence`.

    with use_backend("compiled"):
        train(...)

- ``eager`` runs the operations one by one, on large inputs in pieces.
- ``compiled`` uses torch.compile, which makes C++ on a CPU and Triton on CUDA. Each direction is
  one pass over memory. Spikes are the same as ``eager``, and gradients are equal to 1e-6. Compiling
  takes seconds (torch keeps the machine code for later processes), so it is for long runs.
- ``fused`` uses the kernels of :mod:`codingbench.neurons.fused`, on CUDA. It is the default there.

If compiling fails, one warning says why, and ``eager`` takes over.

The functions here take currents in one of two shapes: [T, N] with scalar beta and threshold, or
[T, B, F] with one beta and threshold per feature.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from codingbench.errors import SpecError, one_line, unknown
from codingbench.neurons import fused
from codingbench.neurons.launch import LIF
from codingbench.neurons.recurrence import Rule, gradients, steps
from codingbench.runtime.lean_torch import tell_compiler

BACKENDS = ("compiled", "eager", "fused")
_PIECE = 2**21  # numbers of one step: limits the memory of the steps recomputed in backward
_MOST_VARIANTS = 256  # of both loops, by rule, T and layout; torch's default is 8

_selected: str | None = None  # None: fused on CUDA, else eager
_has_failed = False

Adjoint = tuple[Tensor, Tensor | None, Tensor | None]


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run neurons by the backend ``name``, one of ``BACKENDS``, inside the context.

    Raises:
        SpecError: there is no such backend.
    """
    global _selected
    if name not in BACKENDS:
        raise SpecError(unknown("backend", name, BACKENDS))
    before, _selected = _selected, name
    try:
        yield
    finally:
        _selected = before


def backend_run(name: str) -> str:
    """Return the backend that ran in ``use_backend(name)``: ``eager`` if compiling has failed."""
    has_failed = fused.has_failed() if name == "fused" else _has_failed
    return "eager" if has_failed else name


def is_fused(x: Tensor) -> bool:
    """Return whether the fused kernels would now run on such currents or features [T, ...]."""
    return _selected in (None, "fused") and fused.can_run(x)


def run_fused(cur: Tensor, lif: Callable[[], LIF | None]) -> Tensor | None:
    """Return the spikes of all steps from the fused kernels, or None if they cannot run."""
    if not is_fused(cur):
        return None
    neuron = lif()
    return None if neuron is None else fused.fire(cur, neuron)


def is_compiled(cur: Tensor, rule: Rule) -> bool:
    """Return whether neurons of this rule would now run compiled on these currents."""
    return (
        _selected == "compiled"
        and not _has_failed
        and cur.device.type in ("cpu", "cuda")
        and rule.is_elementwise
        and not is_in_torch_dispatch_mode()  # such a mode must see the separate operations
    )


def run_steps(cur: Tensor, beta: Tensor, threshold: Tensor, rule: Rule) -> Tensor:
    """Return the spikes of all steps, in the dtype of the currents."""
    if is_compiled(cur, rule):
        with _warning_once():
            compiled: Tensor = _compile(_spikes, rule)(cur, beta, threshold)
            return compiled
    spk = torch.empty(cur.shape, dtype=cur.dtype, device=cur.device)
    for rows in _pieces(cur, rule):
        for _ in steps(_widened(cur[:, rows]), beta, threshold, rule, spk[:, rows].unbind()):
            pass  # each step writes its spikes
    return spk


def run_adjoint(
    cur: Tensor,
    grad_spk: Tensor,
    beta: Tensor,
    threshold: Tensor,
    rule: Rule,
    needs_beta: bool,
    needs_threshold: bool,
) -> Adjoint:
    """Return the gradients by the currents, and by beta and threshold if they are needed."""
    needs = needs_beta, needs_threshold
    if is_compiled(cur, rule):
        with _warning_once():
            found: Adjoint = _compile(_adjoint, rule, *needs)(cur, grad_spk, beta, threshold)
            return found
    grad_cur = torch.empty(cur.shape, dtype=cur.dtype, device=cur.device)
    by_beta = torch.zeros_like(beta) if needs_beta else None
    by_threshold = torch.zeros_like(threshold) if needs_threshold else None
    for rows in _pieces(cur, rule):
        piece = _widened(cur[:, rows]), _widened(grad_spk[:, rows])
        room = torch.empty_like(grad_cur[:, rows], dtype=beta.dtype).unbind()
        part = gradients(*piece, beta, threshold, rule, *needs, room)
        for t, grad in enumerate(part.cur):
            grad_cur[t, rows] = grad
        if by_beta is not None and part.beta is not None:
            by_beta += part.beta
        if by_threshold is not None and part.threshold is not None:
            by_threshold += part.threshold
    return grad_cur, by_beta, by_threshold


def _pieces(cur: Tensor, rule: Rule) -> Iterator[slice]:
    rows = cur.shape[1]
    size = max(1, _PIECE * rows // max(1, cur[0].numel()))
    if cur.device.type != "cpu" or not rule.is_elementwise:
        size = rows
    for start in range(0, rows, max(1, size)):
        yield slice(start, start + size)


def _widened(cur: Tensor) -> tuple[Tensor, ...]:
    """Return the steps in single precision or more: bf16 would lose small currents."""
    return torch.unbind(cur.float() if cur.dtype in (torch.bfloat16, torch.float16) else cur)


def _spikes(rule: Rule, cur: Tensor, beta: Tensor, threshold: Tensor) -> Tensor:
    train = [step.spk for step in steps(_widened(cur), beta, threshold, rule)]
    return torch.stack(train).to(cur.dtype)


def _adjoint(
    rule: Rule,
    needs_beta: bool,
    needs_threshold: bool,
    cur: Tensor,
    grad_spk: Tensor,
    beta: Tensor,
    threshold: Tensor,
) -> Adjoint:
    wide = _widened(cur), _widened(grad_spk)
    found = gradients(*wide, beta, threshold, rule, needs_beta, needs_threshold)
    return torch.stack(found.cur).to(cur.dtype), found.beta, found.threshold


@cache
def _compile(loop: Callable[..., Any], *constants: Any) -> Callable[..., Any]:
    """Compile a loop for all sizes; torch makes one variant of it per T, layout and dtype."""
    from torch import _dynamo

    tell_compiler()
    _dynamo.config.recompile_limit = max(_dynamo.config.recompile_limit, _MOST_VARIANTS)

    def bound(*tensors: Tensor) -> Any:
        return loop(*constants, *tensors)

    # without this option the code would keep the number of threads of the first call
    options: dict[str, str | int | bool | Callable[..., Any]] = {"cpp.dynamic_threads": True}
    return torch.compile(bound, dynamic=True, fullgraph=True, options=options)


@contextlib.contextmanager
def _warning_once() -> Iterator[None]:
    global _has_failed
    try:
        yield
    except Exception as error:  # a compiler may raise anything
        _has_failed = True
        reason = one_line(error).partition(" Set TORCHDYNAMO_VERBOSE")[0]  # advice for torch's own
        warnings.warn(f"neurons run uncompiled: {reason}", stacklevel=4)
