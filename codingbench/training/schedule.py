"""A recipe's optimizer, its checkpoints, and its learning rate at every batch.

On CUDA the optimizers are torch's fused ones and their learning rate is a tensor, which a CUDA
graph reads anew at every replay. Runs with and without graphs use the same kernels, so their
results have the same bits.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from codingbench.recipes.recipe import Recipe
from codingbench.runtime.lean_torch import spare_compiler


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return SGD with momentum or AdamW; :func:`set_rate` sets its learning rate."""
    spare_compiler(torch.optim.Optimizer)
    settings = recipe.optimizer
    parameters = list(network.parameters())
    on_cuda = bool(parameters) and all(p.is_cuda and p.is_floating_point() for p in parameters)
    rate: Any = torch.tensor(settings.lr, device=parameters[0].device) if on_cuda else settings.lr
    fused = True if on_cuda else None
    if settings.name == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            fused=fused,
        )
    return torch.optim.AdamW(
        parameters,
        lr=rate,
        betas=(settings.momentum, 0.999),
        weight_decay=settings.weight_decay,
        fused=fused,
        capturable=on_cuda,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next steps, without waiting for the device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def is_capturable(optimizer: torch.optim.Optimizer) -> bool:
    """Return True if a CUDA graph of the optimizer's step sees later learning rates."""
    return all(isinstance(group["lr"], Tensor) for group in optimizer.param_groups)


def optimizer_state(optimizer: torch.optim.Optimizer, rate: float) -> dict[str, Any]:
    """Return the optimizer's state for a checkpoint, with the present learning rate as a number."""
    state = optimizer.state_dict()
    groups = [group | {"lr": rate} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what :func:`optimizer_state` returned, possibly for another implementation.

    The optimizer keeps its own implementation (fused or not) and the tensor of its learning rate.
    """
    own: list[dict[str, Any]] = [
        {name: group[name] for name in ("lr", "foreach", "fused", "capturable") if name in group}
        for group in optimizer.param_groups
    ]
    groups = [group | kept for group, kept in zip(state["param_groups"], own, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for group, kept in zip(optimizer.param_groups, own, strict=True):
        group |= kept  # load_state_dict copies the tensor of the learning rate


def rate_factor(recipe: Recipe, epoch: int, batch: int, batches: int) -> float:
    """Return the factor of the full learning rate: linear warm-up, then half a cosine to 0.

    ``epoch`` and ``batch`` count from 0; an epoch has ``batches`` batches.
    """
    at = epoch + (batch / batches if recipe.schedule.per == "step" else 0.0)
    warmup = recipe.schedule.warmup_epochs
    if at < warmup:
        return (at + 1 / batches) / (warmup + 1 / batches)
    return 0.5 * (1 + math.cos(math.pi * (at - warmup) / (recipe.epochs - warmup)))
