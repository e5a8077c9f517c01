"""Batch normalisation and neuron as one operation of autograd, computed by Triton kernels.

    spk      = LIF(c)                                 fire(c, lif)
    spk      = LIF(BN(y))                             norm_fire(y, norm, lif)
    spk, cur = LIF(c), c  with  c = BN(y) + residual  norm_fire(y, norm, lif, residual)

The kernels run on CUDA where Triton is installed. Parameters, buffers and results are those of the
layers that they replace: ``nn.BatchNorm2d`` and :class:`~codingbench.neurons.MultiStepLeaky`. If a
kernel cannot be compiled, one warning says why, and the separate layers run for the rest of the
process.
"""

import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from codingbench.errors import one_line
from codingbench.neurons import launch, packed
from codingbench.neurons.launch import LIF

MOST_STEPS = 32  # the kernels' loops over time are unrolled, and packed spikes have 32 bits
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

_has_failed = False


def is_available(device: torch.device) -> bool:
    """Return whether the kernels can run on a device.

    They run on CUDA if Triton is installed, and on any device under Triton's interpreter.
    """
    if _has_failed:
        return False
    is_interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return (device.type == "cuda" or is_interpreted) and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def has_failed() -> bool:
    """Return whether a kernel could not be compiled in this process; none is used afterwards."""
    return _has_failed


def can_run(x: Tensor) -> bool:
    """Return whether the kernels accept such currents, spikes or features [T, ...] now."""
    return (
        is_available(x.device)
        and x.dtype in _DTYPES
        and 0 < len(x) <= MOST_STEPS
        and x.numel() > 0
        and not is_in_torch_dispatch_mode()  # such a mode must see the separate operations
        and not torch.compiler.is_compiling()
    )


def can_normalise(norm: nn.Module) -> bool:
    """Return whether the kernels compute this layer exactly: a plain batch normalisation."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and (norm.training or not torch.is_grad_enabled())
    )


# --- operations -----------------------------------------------------------------------------------


def fire(cur: Tensor, lif: LIF) -> Tensor | None:
    """Compute the spikes of a neuron.

    Args:
        cur: currents [T, ...]. Each step is contiguous, or the current is constant over time.
        lif: the neuron.

    Returns:
        Spikes [T, ...]; None, after one warning, if a kernel cannot be compiled.
    """
    trains = torch.is_grad_enabled() and cur.requires_grad

    def run() -> tuple[Tensor, Tensor | None]:
        if trains and not _is_recording():
            _rehearse_fire(cur.device, cur.dtype, len(cur), min(cur[0].numel(), 1024), lif)
        return _Fire.apply(cur, lif, trains)  # type: ignore[no-any-return]

    found = _attempt(run)
    return None if found is None else packed.attach(*found)


def norm_fire(
    y: Tensor, norm: nn.BatchNorm2d, lif: LIF, residual: Tensor | None = None
) -> tuple[Tensor, Tensor | None] | None:
    """Compute the currents ``norm(y) + residual`` and the spikes of a neuron that receives them.

    Args:
        y: output of a convolution [T, B, C, H, W]. It is copied unless its memory is
            [T, B, H, W, C].
        norm: normalises over time, batch and positions. Its running statistics are updated.
        lif: the neuron.
        residual: added to the normalised features; same shape as ``y``.

    Returns:
        Spikes, and currents if there is a residual; None, after one warning, if a kernel cannot be
        compiled.

    Raises:
        ValueError: there is only one value per channel, which has no variance.
    """
    if norm.training and y[:, :, 0].numel() == 1:
        norm(y.flatten(0, 1))  # raises torch's error
    trains = torch.is_grad_enabled() and norm.training

    def run() -> tuple[Tensor, Tensor | None, Tensor | None]:
        if trains and not _is_recording():
            added = None if residual is None else residual.dtype
            _rehearse_norm_fire(y.device, y.dtype, len(y), y.shape[2], lif, added)
        parameters = norm.weight, norm.bias
        return _NormFire.apply(y, *parameters, residual, norm, lif, trains)  # type: ignore

    found = _attempt(run)
    if found is None:
        return None
    spk, cur, bits = found
    return packed.attach(spk, bits), cur


def _attempt(run: Callable[[], Any]) -> Any:
    """Return the result of ``run``. After an error no kernel is used any more in this process."""
    global _has_failed
    try:
        return run()
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # for example no C compiler or an unknown GPU
        if os.environ.get("CODINGBENCH_DEBUG") or _is_recording():
            raise
        _has_failed = True
        warnings.warn(f"neurons run without Triton: {one_line(error)}", stacklevel=4)
        return None


def _is_recording() -> bool:
    """Return whether launches are captured or compiled ahead, and run nothing.

    An error then says nothing of the kernels.
    """
    if launch.only_compiles():
        return True
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


# A kernel that fails in backward can no longer be replaced. So the first forward pass of each kind
# runs both directions on a few zeros.


@cache
def _rehearse_fire(
    device: torch.device, dtype: torch.dtype, num_steps: int, features: int, lif: LIF
) -> None:
    with torch.enable_grad():
        cur = torch.zeros(num_steps, features, dtype=dtype, device=device, requires_grad=True)
        spk, _ = _Fire.apply(cur, lif, True)
        torch.autograd.grad(_zero(spk), cur)


@cache
def _rehearse_norm_fire(
    device: torch.device,
    dtype: torch.dtype,
    num_steps: int,
    channels: int,
    lif: LIF,
    added: torch.dtype | None,
) -> None:
    shape = (num_steps, 16, channels, 1, 1)
    norm = nn.BatchNorm2d(channels, device="meta")
    # as to_empty does, for which torch imports sympy
    norm._apply(lambda meta: torch.empty(meta.shape, dtype=meta.dtype, device=device))
    norm.reset_parameters()  # unlike the constructor, it does not wait for the device
    with torch.enable_grad():
        y = torch.zeros(shape, dtype=dtype, device=device, requires_grad=True)
        residual = None if added is None else torch.zeros(shape, dtype=added, device=device)
        found = _NormFire.apply(y, norm.weight, norm.bias, residual, norm, lif, True)
        torch.autograd.grad([_zero(out) for out in found[:2] if out is not None], y)


def _zero(output: Tensor) -> Tensor:
    """Return 0 with a dense gradient of zeros. (torch imports sympy for a gradient it is given.)"""
    return (output * torch.zeros_like(output)).sum()


# --- what autograd sees ---------------------------------------------------------------------------


class _Fire(torch.autograd.Function):
    """Saves the currents alone; backward computes the membrane again."""

    @staticmethod
    def forward(ctx: Any, cur: Tensor, lif: LIF, packs: bool) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(cur)
        ctx.set_materialize_grads(False)
        ctx.lif = lif
        flat, spk = launch.as_flat(cur), torch.empty(cur.shape, dtype=cur.dtype, device=cur.device)
        bits = launch.empty_bits(flat) if packs else None
        launch.fire(flat, lif, spk.view(flat.shape), bits=bits)
        if bits is not None:
            ctx.mark_non_differentiable(bits)
        return spk, bits

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (cur,) = ctx.saved_tensors
        flat = launch.as_flat(cur)
        grad_cur = flat.new_empty(flat.shape)
        grad_spk = grad_outputs[0].reshape(flat.shape).contiguous()
        launch.adjoint(flat, ctx.lif, grad_spk, out=grad_cur, stores="current")
        return grad_cur.view(cur.shape), None, None


class _NormFire(torch.autograd.Function):
    """Saves y, the residual, and two numbers per channel: the mean and 1 / std."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        norm: nn.BatchNorm2d,
        lif: LIF,
        packs: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        flat, added = launch.as_rows(y), None if residual is None else launch.as_rows(residual)
        moments = launch.moments(flat, norm) if norm.training else launch.running_moments(norm)
        dtype = y.dtype if added is None else torch.promote_types(y.dtype, added.dtype)
        spk = launch.empty_channels_last(y.shape, dtype, y.device)
        cur = None if added is None else launch.empty_channels_last(y.shape, dtype, y.device)
        bits = launch.empty_bits(flat) if packs else None
        launch.fire(
            flat,
            lif,
            launch.as_rows(spk),
            norm=(*moments, weight, bias),
            residual=added,
            cur=None if cur is None else launch.as_rows(cur),
            bits=bits,
        )
        ctx.save_for_backward(y, weight, bias, residual, *moments)
        ctx.lif = lif
        ctx.set_materialize_grads(False)
        if bits is not None:
            ctx.mark_non_differentiable(bits)
        return spk, cur, bits

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        y, weight, bias, residual, mean, rstd = ctx.saved_tensors
        flat, norm = launch.as_rows(y), (mean, rstd, weight, bias)
        added = None if residual is None else launch.as_rows(residual)
        grad_spk, grad_cur = (
            None if grad is None else launch.as_rows(grad) for grad in grad_outputs[:2]
        )
        if grad_spk is None:  # nothing read the spikes
            dtype = flat.dtype if added is None else torch.promote_types(flat.dtype, added.dtype)
            grad_spk = torch.zeros(flat.shape, dtype=dtype, device=flat.device)
        found = launch.norm_gradients(flat, ctx.lif, norm, added, grad_spk, grad_cur)
        grad_y, grad_weight, grad_bias, grad_added = found
        return (
            launch.from_rows(grad_y, y.shape),
            grad_weight.to(weight.dtype),
            grad_bias.to(bias.dtype),
            None
            if residual is None or grad_added is None
            else launch.from_rows(grad_added, y.shape),
            *(None,) * 3,
        )
