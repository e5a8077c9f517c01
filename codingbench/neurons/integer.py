"""Neurons that send several spikes per step: the recurrence of the I-LIF neuron."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from codingbench.neurons.leaky import MultiStepLeaky


class IntegerNeuron(MultiStepLeaky):
    """A leaky neuron with 0 to D spikes per step; each lowers the membrane by the threshold."""

    def __init__(self, levels: int, beta: float, threshold: float) -> None:
        super().__init__(beta, threshold)
        self.is_fused = False  # no kernel computes this recurrence
        self.sub_steps = levels

    def forward(
        self, cur: Float[Tensor, "time batch *feature"]
    ) -> Float[Tensor, "time batch *feature"]:
        """Return the number of spikes of all steps, from zero membrane."""
        kept, spk = torch.zeros_like(cur[0]), []
        for step in cur:
            mem = self.beta * kept + step
            spk.append(_RoundInside.apply(mem / self.threshold, self.sub_steps))
            kept = mem - self.threshold * spk[-1].detach()
        return torch.stack(spk)


class _RoundInside(torch.autograd.Function):
    """round(clip(x, 0, D)) with derivative 1 where 0 <= x <= D, else 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward((x >= 0) & (x <= levels))
        return x.clamp(0, levels).round()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (is_inside,) = ctx.saved_tensors
        return grad_outputs[0] * is_inside, None
