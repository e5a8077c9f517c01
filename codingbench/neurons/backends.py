"""How the steps of :mod:`codingbench.neurons.recurrence` are run: eagerly, or compiled.

    with use_backend("compiled"):
        train(...)

``eager`` runs the operations one by one, on large inputs in pieces. ``compiled`` is what
torch.compile makes of them, C++ on a CPU and Triton on CUDA: each direction is one pass over
memory. It gives the same spikes, and gradients equal to 1e-6. Compiling takes seconds (torch keeps
the machine code for later processes), so it is for long runs; where it fails, one warning says
why, and eager goes on.

Currents come here in one of two shapes: [T, N] with scalar beta and threshold, or [T, B, F] with
one of each per feature.
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

BACKENDS = ("compiled", "eager", "fused")
_PIECE = 2**21  # numbers of one step: bounds what the steps run again in backward take
_MOST_VARIANTS = 256  # of both loops, by rule, T and layout; torch gives up after 8

_asked: str | None = None  # fused on CUDA, else eager
_has_failed = False

Adjoint = tuple[Tensor, Tensor | None, Tensor | None]


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Inside, neurons are run by ``name``, one of ``BACKENDS``.

    Raises:
        SpecError: no such backend.
    """
    global _asked
    if name not in BACKENDS:
        raise SpecError(unknown("backend", name, BACKENDS))
    before, _asked = _asked, name
    try:
        yield
    finally:
        _asked = before


def backend_run(name: str) -> str:
    """What ``use_backend(name)`` has come to in this process: ``eager`` once compiling failed."""
    has_failed = fused.has_failed() if name == "fused" else _has_failed
    return "eager" if has_failed else name


def is_fused(x: Tensor) -> bool:
    """Whether the fused kernels would now run on currents or features [T, ...] like these."""
    return _asked in (None, "fused") and fused.can_run(x)


def run_fused(cur: Tensor, lif: Callable[[], LIF | None]) -> Tensor | None:
    """Spikes of all steps by the fused kernels; None where they do not run."""
    if not is_fused(cur):
        return None
    neuron = lif()
    return None if neuron is None else fused.fire(cur, neuron)


def is_compiled(cur: Tensor, rule: Rule) -> bool:
    """Whether neurons of this rule would now run compiled on these currents."""
    return (
        _asked == "compiled"
        and not _has_failed
        and cur.device.type in ("cpu", "cuda")
        and rule.is_elementwise
        and not is_in_torch_dispatch_mode()  # what watches operations wants to see them
    )


def run_steps(cur: Tensor, beta: Tensor, threshold: Tensor, rule: Rule) -> Tensor:
    """Spikes of all steps, in the dtype of the currents."""
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
    asks_beta: bool,
    asks_threshold: bool,
) -> Adjoint:
    """Gradients by the currents, and by beta and threshold where asked."""
    asks = asks_beta, asks_threshold
    if is_compiled(cur, rule):
        with _warning_once():
            found: Adjoint = _compile(_adjoint, rule, *asks)(cur, grad_spk, beta, threshold)
            return found
    grad_cur = torch.empty(cur.shape, dtype=cur.dtype, device=cur.device)
    by_beta = torch.zeros_like(beta) if asks_beta else None
    by_threshold = torch.zeros_like(threshold) if asks_threshold else None
    for rows in _pieces(cur, rule):
        piece = _widened(cur[:, rows]), _widened(grad_spk[:, rows])
        room = torch.empty_like(grad_cur[:, rows], dtype=beta.dtype).unbind()
        part = gradients(*piece, beta, threshold, rule, *asks, room)
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
    """The steps, at least in single precision: a membrane in bf16 would lose small currents."""
    return torch.unbind(cur.float() if cur.dtype in (torch.bfloat16, torch.float16) else cur)


def _spikes(rule: Rule, cur: Tensor, beta: Tensor, threshold: Tensor) -> Tensor:
    train = [step.spk for step in steps(_widened(cur), beta, threshold, rule)]
    return torch.stack(train).to(cur.dtype)


def _adjoint(
    rule: Rule,
    asks_beta: bool,
    asks_threshold: bool,
    cur: Tensor,
    grad_spk: Tensor,
    beta: Tensor,
    threshold: Tensor,
) -> Adjoint:
    wide = _widened(cur), _widened(grad_spk)
    found = gradients(*wide, beta, threshold, rule, asks_beta, asks_threshold)
    return torch.stack(found.cur).to(cur.dtype), found.beta, found.threshold


@cache
def _compile(loop: Callable[..., Any], *constants: Any) -> Callable[..., Any]:
    """One compiled loop for all sizes; torch makes a variant of it per T, layout and dtype."""
    from torch import _dynamo

    _dynamo.config.recompile_limit = max(_dynamo.config.recompile_limit, _MOST_VARIANTS)

    def bound(*tensors: Tensor) -> Any:
        return loop(*constants, *tensors)

    # without the option the code is for as many threads as the first call had
    options: dict[str, str | int | bool | Callable[..., Any]] = {"cpp.dynamic_threads": True}
    return torch.compile(bound, dynamic=True, fullgraph=True, options=options)


@contextlib.contextmanager
def _warning_once() -> Iterator[None]:
    global _has_failed
    try:
        yield
    except Exception as error:  # whatever a compiler may raise, the eager loop can do it
        _has_failed = True
        warnings.warn(f"neurons run uncompiled: {one_line(error)}", stacklevel=2)
