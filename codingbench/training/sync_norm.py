"""Batch normalisation over the images of all processes that train one network.

torch's own SyncBatchNorm refuses tensors of the CPU; this one is the same on every device, so what
the tests see is what runs.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from codingbench.training.meter import TrainingError


class JointBatchNorm(_BatchNorm):
    """Normalises like the ``BatchNorm1d``, ``2d`` or ``3d`` that it was, but while training by
    mean and variance over the values of all processes; a process may have none.

    All processes must call it, forward and backward, in the same order. Parameters and buffers
    have their names, and the running variance is the unbiased one of all values. Gradients by
    weight and bias are this process's part, to be added up with the others'.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions, the channel's second."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, channel, ...] to the same shape and dtype."""
        if not self.training:
            return super().forward(input)
        count, mean, var = _moments(input.detach())
        if self.running_mean is not None and self.running_var is not None:
            self._follow(count, mean, var)
        out: Tensor = _Normalise.apply(
            input, self.weight, self.bias, count, mean, torch.rsqrt(var + self.eps)
        )
        return out

    @torch.no_grad()
    def _follow(self, count: Tensor, mean: Tensor, var: Tensor) -> None:
        """Move the running moments towards those of this batch."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        pace = self.momentum
        if pace is None:  # the mean over all batches
            pace = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, pace)
        self.running_var.lerp_(var * (count / (count - 1).clamp(min=1)), pace)


def join_norms(network: nn.Module) -> None:
    """Make every batch normalisation of the network a :class:`JointBatchNorm`, in place.

    Raises:
        TrainingError: one computes in a way of its own, which is not known to be joined.
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
    """Count, and mean and biased variance per channel, over all processes.

    From each process's own mean and squared deviations, which loses no digits where the mean is
    large: Chan, Golub & LeVeque, "Algorithms for computing the sample variance" (1983).
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
    """weight * (x - mean) * scale + bias with ``scale = 1 / sqrt(var + eps)``; the gradient by x
    goes through mean and scale, which hang on the values of all processes."""

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
        return torch.addcmul(_over(shift, x), x, _over(factor, x)).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, count, mean, scale = ctx.saved_tensors
        grad, axes = grad_outputs[0].float(), [0, *range(2, x.dim())]
        unit = (x.float() - _over(mean, x)) * _over(scale, x)
        own = torch.stack([grad.sum(axes), (grad * unit).sum(axes)])
        sums = own.clone()
        dist.all_reduce(sums)
        by_shift, by_scale = sums / count
        factor = scale if weight is None else weight * scale
        grad_x = (grad - _over(by_shift, x) - unit * _over(by_scale, x)) * _over(factor, x)
        return grad_x.to(x.dtype), own[1], own[0], None, None, None


def _over(per_channel: Tensor, x: Tensor) -> Tensor:
    return per_channel.reshape(1, -1, *[1] * (x.dim() - 2))
