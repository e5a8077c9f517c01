"""Launches the kernels of :mod:`codingbench.neurons.kernels` and gives them to autograd.

    spk      = LIF(c)                                 fire(c, lif)
    spk      = LIF(BN(y))                             norm_fire(y, norm, lif)
    spk, cur = LIF(c), c  with  c = BN(y) + residual  norm_fire(y, norm, lif, residual)

They run on CUDA where Triton is installed. Parameters, buffers and results are those of the layers
they stand for: ``nn.BatchNorm2d`` and :class:`~codingbench.neurons.MultiStepLeaky`.
"""

import contextlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from codingbench.errors import one_line
from codingbench.neurons import surrogates
from codingbench.neurons.recurrence import Rule

MOST_STEPS = 32  # the kernels' loops over time are unrolled
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_PROGRAMS = 1024  # that share a reduction: a few for each multiprocessor of a large GPU
_SLOPES: dict[Callable[..., Tensor], tuple[str, tuple[str, ...]]] = {
    surrogates.triangle_slope: ("triangle", ()),
    surrogates.rectangle_slope: ("rectangle", ()),
    surrogates.atan_slope: ("atan", ("alpha",)),
    surrogates.fast_sigmoid_slope: ("fast_sigmoid", ("slope",)),
    surrogates.sparse_fast_sigmoid_slope: ("sparse_fast_sigmoid", ("slope", "B")),
    surrogates.escape_rate_slope: ("escape_rate", ("beta", "slope")),
    surrogates.step_slope: ("step", ()),
    torch.ones_like: ("one", ()),
}
"""Formula -> its name in the kernels, and the parameters they call p and q."""

_has_failed = False


@dataclass(frozen=True)
class LIF:
    """A neuron whose beta and threshold are numbers, as the kernels take it."""

    beta: float
    threshold: float
    reset: str  # a reset of snntorch; " delayed" follows where it is
    slope: str
    p: float
    q: float


def lif_of(beta: float, threshold: float, rule: Rule) -> LIF | None:
    """Describe a neuron to the kernels; None where they do not know its surrogate."""
    formula = getattr(rule.slope, "formula", None)
    if formula not in _SLOPES:
        return None
    name, parameters = _SLOPES[formula]
    values = dict(rule.slope.parameters)  # type: ignore[attr-defined]
    p, q = [float(values[parameter]) for parameter in parameters] + [0.0] * (2 - len(parameters))
    delay = " delayed" if rule.is_delayed and rule.reset != "none" else ""
    return LIF(beta, threshold, rule.reset + delay, name, p, q)


def is_available(device: torch.device) -> bool:
    """Whether the kernels can run on a device: CUDA with Triton, or any under its interpreter."""
    if _has_failed:
        return False
    is_interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return (device.type == "cuda" or is_interpreted) and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def has_failed() -> bool:
    """Whether a kernel could not be compiled in this process, so that none is used any more."""
    return _has_failed


def can_run(x: Tensor) -> bool:
    """Whether the kernels take currents, spikes or features [T, ...] like these, here and now."""
    return (
        is_available(x.device)
        and x.dtype in _DTYPES
        and 0 < len(x) <= MOST_STEPS
        and x.numel() > 0
        and not is_in_torch_dispatch_mode()  # whatever watches operations must see them
        and not torch.compiler.is_compiling()
    )


def can_normalise(norm: nn.Module) -> bool:
    """Whether a layer is a batch normalisation that the kernels compute as it would itself."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and (norm.training or not torch.is_grad_enabled())
    )


# --- what autograd sees ---------------------------------------------------------------------------


def fire(cur: Tensor, lif: LIF) -> Tensor | None:
    """Spikes [T, ...] of currents [T, ...] whose memory is contiguous, or constant over time.

    None, after one warning, where the kernels cannot be compiled.
    """
    return _attempt(lambda: _Fire.apply(cur, lif))  # type: ignore[no-any-return]


def norm_fire(
    y: Tensor, norm: nn.BatchNorm2d, lif: LIF, residual: Tensor | None = None
) -> tuple[Tensor, Tensor | None] | None:
    """Spikes of the currents ``norm(y) + residual``, and these currents where there is a residual.

    None, after one warning, where the kernels cannot be compiled.

    Args:
        y: [T, B, C, H, W], the output of a convolution. Without a copy if its memory is
            [T, B, H, W, C].
        norm: normalises over time, batch and positions. Its running statistics are updated.
        lif: the neuron.
        residual: of the same shape.

    Raises:
        ValueError: one value per channel, of which there is no variance.
    """
    if norm.training and y[:, :, 0].numel() == 1:
        norm(y.flatten(0, 1))  # raises the error that says so
    parameters = norm.weight, norm.bias
    result: tuple[Tensor, Tensor | None] | None = _attempt(
        lambda: _NormFire.apply(y, *parameters, residual, norm, lif)
    )
    return result


def _attempt(run: Callable[[], Any]) -> Any:
    """What ``run`` returns. An error ends the use of the kernels in this process."""
    global _has_failed
    try:
        return run()
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # no C compiler, an unknown GPU, ...: the separate layers still run
        if os.environ.get("CODINGBENCH_DEBUG") or _is_capturing():
            raise
        _has_failed = True
        warnings.warn(f"neurons run without Triton: {one_line(error)}", stacklevel=4)
        return None


def _is_capturing() -> bool:
    """Return whether a CUDA graph is being captured: an error then says nothing of the kernels."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


class _Fire(torch.autograd.Function):
    """Saves the currents, as the membrane's cheapest record."""

    @staticmethod
    def forward(ctx: Any, cur: Tensor, lif: LIF) -> Tensor:
        ctx.save_for_backward(cur)
        ctx.lif = lif
        flat, spk = _flat(cur), torch.empty(cur.shape, dtype=cur.dtype, device=cur.device)
        _launch_fire(flat, lif, spk.view(flat.shape))
        return spk

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (cur,) = ctx.saved_tensors
        flat = _flat(cur)
        grad_cur = flat.new_empty(flat.shape)
        grad_spk = grad_outputs[0].reshape(flat.shape).contiguous()
        _launch_adjoint(flat, ctx.lif, grad_spk, out=grad_cur, stores="current")
        return grad_cur.view(cur.shape), None


class _NormFire(torch.autograd.Function):
    """Saves y, the residual, and mean and 1 / std of every channel."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        norm: nn.BatchNorm2d,
        lif: LIF,
    ) -> tuple[Tensor, Tensor | None]:
        flat, added = _rows(y), None if residual is None else _rows(residual)
        moments = _moments(flat, norm) if norm.training else _running_moments(norm)
        dtype = y.dtype if added is None else torch.promote_types(y.dtype, added.dtype)
        spk = _room(y.shape, dtype, y.device)
        cur = None if added is None else _room(y.shape, dtype, y.device)
        written = _rows(spk), None if cur is None else _rows(cur)
        _launch_fire(flat, lif, written[0], (*moments, weight, bias), added, written[1])
        ctx.save_for_backward(y, weight, bias, residual, *moments)
        ctx.lif = lif
        ctx.set_materialize_grads(False)
        return spk, cur

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        y, weight, bias, residual, mean, rstd = ctx.saved_tensors
        flat, norm = _rows(y), (mean, rstd, weight, bias)
        added = None if residual is None else _rows(residual)
        grad_spk, grad_cur = (None if grad is None else _rows(grad) for grad in grad_outputs)
        if grad_spk is None:  # nothing read the spikes
            dtype = flat.dtype if added is None else torch.promote_types(flat.dtype, added.dtype)
            grad_spk = torch.zeros(flat.shape, dtype=dtype, device=flat.device)
        found = _gradients(flat, ctx.lif, norm, added, grad_spk, grad_cur)
        grad_y, grad_weight, grad_bias, grad_added = found
        return (
            _unrows(grad_y, y.shape),
            grad_weight.to(weight.dtype),
            grad_bias.to(bias.dtype),
            None if residual is None or grad_added is None else _unrows(grad_added, y.shape),
            None,
            None,
        )


# --- memory ---------------------------------------------------------------------------------------


def _flat(cur: Tensor) -> Tensor:
    """[T, 1, N], a view where each step is contiguous."""
    flat = cur.flatten(1) if cur.dim() > 1 else cur.unsqueeze(1)
    flat = flat if flat[0].is_contiguous() else flat.contiguous()
    return flat.unsqueeze(1)


def _rows(x: Tensor) -> Tensor:
    """[T, rows, C] of [T, B, C, H, W], a view where memory is [T, B, H, W, C]."""
    rows = x.movedim(2, -1).flatten(1, -2)
    return rows if rows[0].is_contiguous() else rows.contiguous()


def _room(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[T, B, C, H, W] whose memory is [T, B, H, W, C]; not a view, so that it can be edited."""
    _, batch, channels, height, width = shape
    strides = (width * channels, channels)
    image = height * width * channels
    return torch.empty_strided(
        shape, (batch * image, image, 1, *strides), dtype=dtype, device=device
    )


def _unrows(rows: Tensor, shape: torch.Size) -> Tensor:
    steps, batch, channels, height, width = shape
    return rows.view(steps, batch, height, width, channels).movedim(-1, 2)


# --- launches -------------------------------------------------------------------------------------

Norm = tuple[Tensor, Tensor, Tensor, Tensor]
"""Mean, 1 / std, weight and bias of every channel."""


@cache
def _kernels() -> ModuleType:
    from codingbench.neurons import kernels

    return kernels


@dataclass(frozen=True)
class _Tile:
    """The block of rows and channels that a program holds at once, at all steps."""

    rows: int
    cols: int

    @classmethod
    def of(cls, flat: Tensor, is_backward: bool = False) -> "_Tile":
        steps, rows, channels = flat.shape
        numbers = 1024  # 8 a thread: loads of 16 bytes in bf16
        if is_backward and steps > 4:
            numbers = 512 if steps <= 8 else 256  # all membranes are held in registers
        cols = min(numbers if rows == 1 else 128, 1 << (channels - 1).bit_length())
        return cls(max(1, numbers // cols) if rows > 1 else 1, cols)

    def columns(self, channels: int) -> int:
        """Blocks of channels."""
        return -(-channels // self.cols)

    def chunk(self, rows: int, channels: int) -> int:
        """Rows that one program of a reduction takes, a multiple of the tile's."""
        parts = max(1, _PROGRAMS // self.columns(channels))
        tiles = -(-rows // self.rows)
        return self.rows * max(2, -(-tiles // parts))


def _on(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def _moments(flat: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Mean and 1 / std of every channel; the running ones of ``norm`` follow them."""
    assert norm.running_mean is not None and norm.running_var is not None
    channels = flat.shape[2]
    flat = flat.contiguous().view(1, -1, channels)
    rows, tile = flat.shape[1], _Tile.of(flat)
    chunk = tile.chunk(rows, channels)
    parts = -(-rows // chunk)
    means, squares = flat.new_empty((2, parts, channels), dtype=torch.float32)
    mean, rstd = flat.new_empty((2, channels), dtype=torch.float32)
    with _on(flat):
        _kernels().statistics[(parts * tile.columns(channels),)](
            flat, means, squares, rows, channels, chunk, ROWS=tile.rows, COLS=tile.cols
        )
        _kernels().finish_statistics[(-(-channels // 16),)](
            means, squares, mean, rstd, norm.running_mean, norm.running_var,
            norm.num_batches_tracked, parts, rows, channels, chunk, float(rows), norm.eps,
            norm.momentum, PARTS=64, COLS=16,
        )  # fmt: skip
    return mean, rstd


def _running_moments(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean.float(), torch.rsqrt(norm.running_var.float() + norm.eps)


def _launch_fire(
    flat: Tensor,
    lif: LIF,
    spk: Tensor,
    norm: Norm | None = None,
    residual: Tensor | None = None,
    cur: Tensor | None = None,
) -> None:
    steps, rows, channels = flat.shape
    tile = _Tile.of(flat)
    mean, rstd, weight, bias = norm or (flat,) * 4  # any tensor stands for one that is not read
    with _on(flat):
        _kernels().fire[(-(-rows // tile.rows) * tile.columns(channels),)](
            flat, flat if residual is None else residual, mean, rstd, weight, bias,
            spk, spk if cur is None else cur,
            rows, channels, rows * channels, flat.stride(0),
            0 if residual is None else residual.stride(0), lif.beta, lif.threshold,
            T=steps, RESET=lif.reset, NORM=norm is not None, RESIDUAL=residual is not None,
            EMIT=cur is not None, ROWS=tile.rows, COLS=tile.cols,
        )  # fmt: skip


def _launch_adjoint(
    flat: Tensor,
    lif: LIF,
    grad_spk: Tensor,
    *,
    norm: Norm | None = None,
    residual: Tensor | None = None,
    grad_cur: Tensor | None = None,
    sums: tuple[Tensor, Tensor] | None = None,
    finds_sums: bool = False,
    out: Tensor | None = None,
    stores: str = "none",
) -> None:
    steps, rows, channels = flat.shape
    tile = _Tile.of(flat, is_backward=True)
    chunk = tile.chunk(rows, channels) if finds_sums else tile.rows
    mean, rstd, weight, bias = norm or (flat,) * 4
    sum_of, product_of = sums or (flat, flat)
    with _on(flat):
        _kernels().adjoint[(-(-rows // chunk) * tile.columns(channels),)](
            flat, flat if residual is None else residual, mean, rstd, weight, bias, grad_spk,
            grad_spk if grad_cur is None else grad_cur, flat if out is None else out,
            sum_of, product_of,
            rows, channels, rows * channels, flat.stride(0),
            0 if residual is None else residual.stride(0), chunk, float(steps * rows),
            lif.beta, lif.threshold, lif.p, lif.q,
            T=steps, RESET=lif.reset, SLOPE=lif.slope, NORM=norm is not None,
            RESIDUAL=residual is not None, READ_BY_OTHERS=grad_cur is not None,
            SUMS=finds_sums, STORE=stores, ROWS=tile.rows, COLS=tile.cols,
        )  # fmt: skip


def _gradients(
    flat: Tensor,
    lif: LIF,
    norm: Norm,
    residual: Tensor | None,
    grad_spk: Tensor,
    grad_cur: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """By y, weight, bias and residual."""
    steps, rows, channels = flat.shape
    tile = _Tile.of(flat, is_backward=True)
    parts = -(-rows // tile.chunk(rows, channels))
    partial = flat.new_empty((2, parts, channels), dtype=torch.float32)
    grad_bias, grad_weight = flat.new_empty((2, channels), dtype=torch.float32)
    by_current = None if residual is None else torch.empty_like(grad_spk)
    same: dict[str, Any] = {"norm": norm, "residual": residual, "grad_cur": grad_cur}
    _launch_adjoint(
        flat, lif, grad_spk, **same, sums=(partial[0], partial[1]), finds_sums=True,
        out=by_current, stores="none" if by_current is None else "current",
    )  # fmt: skip
    grad_y = torch.empty(flat.shape, dtype=flat.dtype, device=flat.device)
    with _on(flat):
        _kernels().finish_sums[(-(-channels // 16),)](
            partial[0], partial[1], grad_bias, grad_weight, parts, channels, PARTS=64, COLS=16
        )
    if by_current is None:
        sums = grad_bias, grad_weight
        _launch_adjoint(flat, lif, grad_spk, **same, sums=sums, out=grad_y, stores="input")
        return grad_y, grad_weight, grad_bias, None
    mean, rstd, weight, _ = norm
    folded = flat.contiguous().view(1, -1, channels)
    tile = _Tile.of(folded)
    blocks = -(-folded.shape[1] // tile.rows) * tile.columns(channels)
    with _on(flat):
        _kernels().gradient_of_input[(blocks,)](
            folded, by_current, mean, rstd, weight, grad_bias, grad_weight, grad_y,
            steps * rows, channels, float(steps * rows), ROWS=tile.rows, COLS=tile.cols,
        )  # fmt: skip
    assert residual is not None
    return grad_y, grad_weight, grad_bias, by_current.to(residual.dtype)
