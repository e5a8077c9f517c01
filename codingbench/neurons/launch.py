"""Calls of the Triton kernels of :mod:`codingbench.neurons.kernels`: memory, tiles and arguments.

Nothing here is seen by autograd; :mod:`codingbench.neurons.fused` does that.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from codingbench.neurons import surrogates
from codingbench.neurons.recurrence import Rule

_PROGRAMS = 1024  # that share a reduction: a few for each multiprocessor of a large GPU
_SLOPES: dict[Callable[..., Tensor], tuple[str, tuple[str, ...]]] = {
    surrogates.triangle_slope: ("triangle", ()),
    surrogates.rectangle_slope: ("rectangle", ()),
    surrogates.atan_slope: ("atan", ("alpha",)),
    surrogates.fast_sigmoid_slope: ("fast_sigmoid", ("slope",)),
    surrogates.sigmoid_slope: ("sigmoid", ("slope",)),
    surrogates.sparse_fast_sigmoid_slope: ("sparse_fast_sigmoid", ("slope", "B")),
    surrogates.escape_rate_slope: ("escape_rate", ("beta", "slope")),
    surrogates.step_slope: ("step", ()),
    torch.ones_like: ("one", ()),
}
"""The kernels' name of each formula, and the parameters that they call p and q."""


@dataclass(frozen=True)
class LIF:
    """A neuron with fixed beta and threshold, described to the kernels.

    Args:
        beta: decay per step.
        threshold: a membrane strictly above it spikes.
        reset: a reset of snntorch, followed by " delayed" if it is delayed.
        slope: the surrogate's name in the kernels.
        p, q: the surrogate's parameters.
    """

    beta: float
    threshold: float
    reset: str
    slope: str
    p: float
    q: float


def lif_of(beta: float, threshold: float, rule: Rule) -> LIF | None:
    """Describe a neuron to the kernels; return None if they do not know its surrogate."""
    formula = getattr(rule.slope, "formula", None)
    if formula not in _SLOPES:
        return None
    name, parameters = _SLOPES[formula]
    values = dict(rule.slope.parameters)  # type: ignore[attr-defined]
    p, q = [float(values[parameter]) for parameter in parameters] + [0.0] * (2 - len(parameters))
    delay = " delayed" if rule.is_delayed and rule.reset != "none" else ""
    return LIF(beta, threshold, rule.reset + delay, name, p, q)


# --- memory ---------------------------------------------------------------------------------------


def as_flat(cur: Tensor) -> Tensor:
    """Return [T, 1, N]: a view if each step is contiguous, else a copy."""
    flat = cur.flatten(1) if cur.dim() > 1 else cur.unsqueeze(1)
    flat = flat if flat[0].is_contiguous() else flat.contiguous()
    return flat.unsqueeze(1)


def as_rows(x: Tensor) -> Tensor:
    """Return [T, rows, C] of [T, B, C, H, W]: a view if memory is [T, B, H, W, C], else a copy."""
    rows = x.movedim(2, -1).flatten(1, -2)
    return rows if rows[0].is_contiguous() else rows.contiguous()


def empty_channels_last(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a new tensor [T, B, C, H, W] with memory [T, B, H, W, C].

    It is not a view, so that a function of autograd may return it and others may modify it.
    """
    _, batch, channels, height, width = shape
    strides = (width * channels, channels)
    image = height * width * channels
    return torch.empty_strided(
        shape, (batch * image, image, 1, *strides), dtype=dtype, device=device
    )


def empty_bits(flat: Tensor) -> Tensor:
    """Return room for the packed spikes of currents [T, rows, C]: one number per neuron."""
    steps, *shape = flat.shape
    dtype = torch.uint8 if steps <= 8 else torch.int16 if steps <= 16 else torch.int32
    return torch.empty(shape, dtype=dtype, device=flat.device)


def from_rows(rows: Tensor, shape: torch.Size) -> Tensor:
    """Return rows [T, rows, C] as [T, B, C, H, W], a view."""
    steps, batch, channels, height, width = shape
    return rows.view(steps, batch, height, width, channels).movedim(-1, 2)


# --- launches -------------------------------------------------------------------------------------

Norm = tuple[Tensor, Tensor, Tensor, Tensor]
"""Mean, 1 / std, weight and bias of every channel."""


@cache
def kernels() -> ModuleType:
    """Return the module of the kernels, which imports Triton."""
    from codingbench.neurons import kernels

    return kernels


_compiler: Any = None


def only_compiles() -> bool:
    """Return whether launches compile their kernels and run nothing."""
    return _compiler is not None


@contextlib.contextmanager
def through(compiler: Any) -> Iterator[None]:
    """Let a compiler take all launches in place of the kernels, in every thread."""
    global _compiler
    _compiler = compiler
    try:
        yield
    finally:
        _compiler = None


def _kernel(name: str) -> Any:
    return getattr(kernels() if _compiler is None else _compiler, name)


@dataclass(frozen=True)
class _Tile:
    """The block of rows and channels that one program holds at once, with all steps."""

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
        """Return the number of blocks of channels."""
        return -(-channels // self.cols)

    def chunk(self, rows: int, channels: int) -> int:
        """Return how many rows one program of a reduction takes, a multiple of the tile's."""
        parts = max(1, _PROGRAMS // self.columns(channels))
        tiles = -(-rows // self.rows)
        return self.rows * max(2, -(-tiles // parts))


def on_device(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Select the device of a tensor: Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def moments(flat: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return mean and 1 / std of every channel of [T, rows, C].

    The running statistics of ``norm`` are updated.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    channels = flat.shape[2]
    flat = flat.contiguous().view(1, -1, channels)
    rows, tile = flat.shape[1], _Tile.of(flat)
    chunk = tile.chunk(rows, channels)
    parts = -(-rows // chunk)
    means, squares = flat.new_empty((2, parts, channels), dtype=torch.float32)
    mean, rstd = flat.new_empty((2, channels), dtype=torch.float32)
    with on_device(flat):
        _kernel("statistics")[(parts * tile.columns(channels),)](
            flat, means, squares, rows, channels, chunk, ROWS=tile.rows, COLS=tile.cols
        )
        _kernel("finish_statistics")[(-(-channels // 16),)](
            means, squares, mean, rstd, norm.running_mean, norm.running_var,
            norm.num_batches_tracked, parts, rows, channels, chunk, float(rows), norm.eps,
            norm.momentum, PARTS=64, COLS=16,
        )  # fmt: skip
    return mean, rstd


def running_moments(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the running mean and 1 / std of every channel."""
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean.float(), torch.rsqrt(norm.running_var.float() + norm.eps)


def fire(
    flat: Tensor,
    lif: LIF,
    spk: Tensor,
    *,
    norm: Norm | None = None,
    residual: Tensor | None = None,
    cur: Tensor | None = None,
    bits: Tensor | None = None,
) -> None:
    """Write the spikes of [T, rows, C], and their currents and packed spikes if there is room."""
    steps, rows, channels = flat.shape
    tile = _Tile.of(flat)
    mean, rstd, weight, bias = norm or (flat,) * 4  # an argument that is not read may be any tensor
    with on_device(flat):
        _kernel("fire")[(-(-rows // tile.rows) * tile.columns(channels),)](
            flat, flat if residual is None else residual, mean, rstd, weight, bias,
            spk, spk if cur is None else cur, spk if bits is None else bits,
            rows, channels, rows * channels, flat.stride(0),
            0 if residual is None else residual.stride(0), lif.beta, lif.threshold,
            T=steps, RESET=lif.reset, NORM=norm is not None, RESIDUAL=residual is not None,
            EMIT=cur is not None, PACK=bits is not None, ROWS=tile.rows, COLS=tile.cols,
            enable_fp_fusion=False,
        )  # fmt: skip


def unpack(bits: Tensor, spk: Tensor, num_steps: int) -> None:
    """Write the spikes of all steps, in the order in which ``spk`` lies in memory."""
    numbers, block = bits.numel(), 1024
    with on_device(spk):
        _kernel("unpack")[(-(-numbers // block),)](bits, spk, numbers, T=num_steps, BLOCK=block)


def adjoint(
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
    """Run the neuron backwards; see the kernel ``adjoint`` for what it writes."""
    steps, rows, channels = flat.shape
    tile = _Tile.of(flat, is_backward=True)
    chunk = tile.chunk(rows, channels) if finds_sums else tile.rows
    mean, rstd, weight, bias = norm or (flat,) * 4
    sum_of, product_of = sums or (flat, flat)
    with on_device(flat):
        _kernel("adjoint")[(-(-rows // chunk) * tile.columns(channels),)](
            flat, flat if residual is None else residual, mean, rstd, weight, bias, grad_spk,
            grad_spk if grad_cur is None else grad_cur, flat if out is None else out,
            sum_of, product_of,
            rows, channels, rows * channels, flat.stride(0),
            0 if residual is None else residual.stride(0), chunk, float(steps * rows),
            lif.beta, lif.threshold, lif.p, lif.q,
            T=steps, RESET=lif.reset, SLOPE=lif.slope, NORM=norm is not None,
            RESIDUAL=residual is not None, READ_BY_OTHERS=grad_cur is not None,
            SUMS=finds_sums, STORE=stores, ROWS=tile.rows, COLS=tile.cols,
            enable_fp_fusion=False,
        )  # fmt: skip


def norm_gradients(
    flat: Tensor,
    lif: LIF,
    norm: Norm,
    residual: Tensor | None,
    grad_spk: Tensor,
    grad_cur: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return the gradients by y, weight, bias and residual."""
    steps, rows, channels = flat.shape
    tile = _Tile.of(flat, is_backward=True)
    parts = -(-rows // tile.chunk(rows, channels))
    partial = flat.new_empty((2, parts, channels), dtype=torch.float32)
    grad_bias, grad_weight = flat.new_empty((2, channels), dtype=torch.float32)
    by_current = None if residual is None else torch.empty_like(grad_spk)
    same: dict[str, Any] = {"norm": norm, "residual": residual, "grad_cur": grad_cur}
    adjoint(
        flat, lif, grad_spk, **same, sums=(partial[0], partial[1]), finds_sums=True,
        out=by_current, stores="none" if by_current is None else "current",
    )  # fmt: skip
    grad_y = torch.empty(flat.shape, dtype=flat.dtype, device=flat.device)
    with on_device(flat):
        _kernel("finish_sums")[(-(-channels // 16),)](
            partial[0], partial[1], grad_bias, grad_weight, parts, channels, PARTS=64, COLS=16
        )
    if by_current is None:
        sums = grad_bias, grad_weight
        adjoint(flat, lif, grad_spk, **same, sums=sums, out=grad_y, stores="input")
        return grad_y, grad_weight, grad_bias, None
    mean, rstd, weight, _ = norm
    folded = flat.contiguous().view(1, -1, channels)
    tile = _Tile.of(folded)
    blocks = -(-folded.shape[1] // tile.rows) * tile.columns(channels)
    with on_device(flat):
        _kernel("gradient_of_input")[(blocks,)](
            folded, by_current, mean, rstd, weight, grad_bias, grad_weight, grad_y,
            steps * rows, channels, float(steps * rows), ROWS=tile.rows, COLS=tile.cols,
        )  # fmt: skip
    assert residual is not None
    return grad_y, grad_weight, grad_bias, by_current.to(residual.dtype)
