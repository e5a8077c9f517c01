"""Batch normalisation over the images of all processes that train one network.

torch's SyncBatchNorm does not accept tensors on the CPU. This one is the same on every device, so
tests on a CPU cover the code that runs on GPUs.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from codingbench.training.meter import TrainingError


class JointBatchNorm(_BatchNorm):
    """Batch normalisation whose training statistics span all processes.

    It replaces a ``BatchNorm1d``, ``2d`` or ``3d`` and keeps the names of its parameters and
    buffers. While training it uses the mean and variance over the values of all processes, some of
    which may have no values. The running variance is the unbiased one over all values. All
    processes must run their forward and backward passes in the same order. The gradients of weight
    and bias are the part of this process and must be added up over the processes.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions; the second is the channel."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [N, channel, ...]; shape and dtype stay the same."""
        if not self.training:
            return super().forward(input)
        count, mean, var = _moments(input.detach())
        if self.running_mean is not None and self.running_var is not None:
            self._update_running(count, mean, var)
        out: Tensor = _Normalise.apply(
            input, self.weight, self.bias, count, mean, torch.rsqrt(var + self.eps)
        )
        return out

    @torch.no_grad()
    def _update_running(self, count: Tensor, mean: Tensor, var: Tensor) -> None:
        """Update the running mean and variance with those of this batch."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:  # a mean over all batches
            momentum = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var * (count / (count - 1).clamp(min=1)), momentum)


def join_norms(network: nn.Module) -> None:
    """Turn every batch normalisation of the network into a :class:`JointBatchNorm`, in place.

    Raises:
        TrainingError: a layer has its own ``forward``, so its statistics cannot be joined.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, _BatchNorm):
            if type(layer).forward is not _BatchNorm.forward:
                raise TrainingError(
                    f"{name} is a {type(layer).__name__}, which cannot be trained on several "
                    "devices: expected torch's BatchNorm1d, 2d or 3d"
                )
            layer.__class__ = JointBatchNorm


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the count, and mean and biased variance per channel, over all processes.

    They are combined from the mean and the squared deviations of each process, which stays accurate
    where the mean is large. Source: Chan, Golub & LeVeque, "Algorithms for computing the sample
    variance" (1983).
    """
    channels, axes = x.shape[1], [0, *range(2, x.dim())]
    own = x.new_zeros((1 + 2 * channels,), dtype=torch.float32)
    if x.numel():
        var, mean = torch.var_mean(x.float(), axes, correction=0)
        own = torch.cat([own.new_full((1,), x.numel() // channels), mean, var])
    each = own.new_empty((dist.get_world_size(), len(own)))
    dist.all_gather(list(each), own)
    counts, means, variances = each[:, :1], each[:, 1 : 1 + channels], each[:, 1 + channels :]
    count = counts.sum()
    mean = (counts * means).sum(0) / count
    squares = counts * (variances + (means - mean).square())
    return count, mean, squares.sum(0) / count


class _Normalise(torch.autograd.Function):
    """weight * (x - mean) * scale + bias with ``scale = 1 / sqrt(var + eps)``.

    The gradient with respect to x includes mean and scale, which depend on the values of all
    processes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        count: Tensor,
        mean: Tensor,
        scale: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, count, mean, scale)
        factor = scale if weight is None else weight * scale
        shift = -mean * factor if bias is None else bias - mean * factor
        return torch.addcmul(_per_channel(shift, x), x, _per_channel(factor, x)).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, count, mean, scale = ctx.saved_tensors
        grad, axes = grad_outputs[0].float(), [0, *range(2, x.dim())]
        unit = (x.float() - _per_channel(mean, x)) * _per_channel(scale, x)
        own = torch.stack([grad.sum(axes), (grad * unit).sum(axes)])
        sums = own.clone()
        dist.all_reduce(sums)
        by_shift, by_scale = sums / count
        factor = scale if weight is None else weight * scale
        grad_x = (
            grad - _per_channel(by_shift, x) - unit * _per_channel(by_scale, x)
        ) * _per_channel(factor, x)
        return grad_x.to(x.dtype), own[1], own[0], None, None, None


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(1, -1, *[1] * (x.dim() - 2))
