"""A recipe's optimizer, and its learning rate at every batch."""

import math

import torch
from torch import nn

from codingbench.recipes.recipe import Recipe


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW; its learning rate is set anew at every batch."""
    settings = recipe.optimizer
    if settings.name == "sgd":
        return torch.optim.SGD(
            network.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
    return torch.optim.AdamW(
        network.parameters(),
        lr=settings.lr,
        betas=(settings.momentum, 0.999),
        weight_decay=settings.weight_decay,
    )


def rate_factor(recipe: Recipe, epoch: int, batch: int, batches: int) -> float:
    """Share of the full learning rate: linear warm-up, then half a cosine to 0.

    ``epoch`` and ``batch`` count from 0; an epoch has ``batches``.
    """
    at = epoch + (batch / batches if recipe.schedule.per == "step" else 0.0)
    warmup = recipe.schedule.warmup_epochs
    if at < warmup:
        return (at + 1 / batches) / (warmup + 1 / batches)
    return 0.5 * (1 + math.cos(math.pi * (at - warmup) / (recipe.epochs - warmup)))
