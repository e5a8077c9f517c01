"""A recipe's optimizer, its checkpoints, and its learning rate at every batch.

On CUDA the learning rates are tensors, which a CUDA graph reads anew at every replay, and SGD and
AdamW are torch's fused ones. Runs with and without graphs use the same kernels, so their results
have the same bits.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from codingbench.recipes.recipe import Optimizer, Recipe, Rest
from codingbench.runtime.lean_torch import spare_compiler, take_step
from codingbench.training.muon import Muon, hidden_filters

_NORMS: Final = (
    nn.modules.batchnorm._NormBase,  # batch and instance normalisation
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)
_FIRST_OF_ONE_CYCLE: Final = 1 / 25
"""Share of the full rate at which a one-cycle schedule begins: 1 / ``div_factor`` of torch."""

_OWN: Final = ("lr", "factor", "foreach", "fused", "capturable")
"""Settings of an optimizer's groups that stay as they are when a checkpoint is loaded."""


class Joint:
    """Several optimizers that step together, with what the training loop needs of one.

    Args:
        parts: the optimizers, whose parameters are disjoint.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove all gradients, or set them to 0."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Take one step of every part."""
        for part in self.parts:
            take_step(part)


AnyOptimizer = torch.optim.Optimizer | Joint


def make_optimizer(network: nn.Module, recipe: Recipe) -> AnyOptimizer:
    """Return SGD, AdamW, or Muon with one of them; :func:`set_rate` sets the learning rates."""
    spare_compiler(torch.optim.Optimizer)
    settings = recipe.optimizer
    parameters = list(network.parameters())
    on_cuda = bool(parameters) and all(p.is_cuda and p.is_floating_point() for p in parameters)
    device = parameters[0].device if on_cuda else None
    filters = hidden_filters(network) if settings.name == "muon" else []
    groups = _groups(network, settings, set(filters), device)
    usual = settings.rest or settings
    parts: list[torch.optim.Optimizer] = []
    if filters:
        parts.append(_muon(filters, settings, device))
    if groups or not filters:
        parts.append(_usual(groups, usual, on_cuda))
    return parts[0] if len(parts) == 1 else Joint(parts)


def _muon(filters: Iterable[nn.Parameter], settings: Optimizer, device: Any) -> Muon:
    return Muon(
        filters,
        _rate(settings.lr, device),
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        normalises=settings.normalises_filters,
    )


def _usual(
    groups: list[dict[str, Any]], settings: Optimizer | Rest, on_cuda: bool
) -> torch.optim.Optimizer:
    """Return SGD or AdamW. The groups have their learning rates and weight decays."""
    fused = True if on_cuda else None
    if settings.name == "sgd":
        return torch.optim.SGD(
            groups, momentum=settings.momentum, nesterov=settings.nesterov, fused=fused
        )
    return torch.optim.AdamW(
        groups, betas=(settings.momentum, 0.999), fused=fused, capturable=on_cuda
    )


def _groups(
    network: nn.Module, settings: Optimizer, taken: set[nn.Parameter], device: Any
) -> list[dict[str, Any]]:
    """Return the parameters that are not ``taken``, together where rate and decay are the same.

    ``factor`` is a group's learning rate relative to that of the recipe's optimizer.
    """
    usual = settings.rest or settings
    factors = {"bias": settings.bias_lr_factor, "norm": settings.norm_lr_factor}
    kinds, alike = _kinds(network), dict[tuple[float, float], list[nn.Parameter]]()
    for parameter in network.parameters():
        if parameter not in taken:
            kind = kinds.get(parameter)
            decays = kind is None or settings.decays_norm_and_bias
            factor = factors.get(kind or "", 1.0) * (usual.lr / settings.lr)
            decay = usual.weight_decay if decays else 0.0
            alike.setdefault((factor, decay), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": _rate(settings.lr * factor, device),
            "weight_decay": decay,
            "factor": factor,
        }
        for (factor, decay), parameters in alike.items()
    ]


def _kinds(network: nn.Module) -> dict[nn.Parameter, str]:
    """Return the parameters that are a ``bias``, or the weight of a normalisation (``norm``)."""
    kinds = {}
    for layer in network.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            if "bias" in name:
                kinds[parameter] = "bias"
            elif isinstance(layer, _NORMS):
                kinds[parameter] = "norm"
    return kinds


def _rate(rate: float, device: torch.device | None) -> float | Tensor:
    return rate if device is None else torch.tensor(rate, device=device)


def set_rate(optimizer: AnyOptimizer, rate: float) -> None:
    """Set the learning rate of the next steps, without waiting for the device.

    Each group gets its factor times ``rate``.
    """
    for group in optimizer.param_groups:
        own = rate * group.get("factor", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def is_capturable(optimizer: AnyOptimizer) -> bool:
    """Return True if a CUDA graph of the optimizer's step sees later learning rates."""
    return all(isinstance(group["lr"], Tensor) for group in optimizer.param_groups)


def optimizer_state(optimizer: AnyOptimizer, rate: float) -> dict[str, Any]:
    """Return the optimizer's state for a checkpoint, with the present learning rate as a number."""
    if isinstance(optimizer, Joint):
        return {"parts": [optimizer_state(part, rate) for part in optimizer.parts]}
    state = optimizer.state_dict()
    groups = [group | {"lr": rate} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def rate_of_state(state: dict[str, Any]) -> float:
    """Return the learning rate in a state that :func:`optimizer_state` returned."""
    first = state["parts"][0] if "parts" in state else state
    rate: float = first["param_groups"][0]["lr"]
    return rate


def load_optimizer_state(optimizer: AnyOptimizer, state: dict[str, Any]) -> None:
    """Load what :func:`optimizer_state` returned, possibly for another implementation.

    The optimizer keeps its own implementation (fused or not) and the tensors of its learning rates.
    """
    if isinstance(optimizer, Joint):
        for part, saved in zip(optimizer.parts, state["parts"], strict=True):
            load_optimizer_state(part, saved)
        return
    own: list[dict[str, Any]] = [
        {name: group[name] for name in _OWN if name in group} for group in optimizer.param_groups
    ]
    groups = [group | kept for group, kept in zip(state["param_groups"], own, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for group, kept in zip(optimizer.param_groups, own, strict=True):
        group |= kept  # load_state_dict copies the tensor of the learning rate


def rate_factor(recipe: Recipe, epoch: int, batch: int, batches: int) -> float:
    """Return the factor of the full learning rate: a warm-up, then a fall to the final factor.

    ``epoch`` and ``batch`` count from 0; an epoch has ``batches`` batches.
    """
    schedule = recipe.schedule
    at = epoch + (batch / batches if schedule.per == "step" else 0.0)
    warmup, final = schedule.warmup_epochs, schedule.final_factor
    if at < warmup:
        if schedule.shape == "one_cycle":
            return 1 - (1 - _FIRST_OF_ONE_CYCLE) * _half_cosine(at / warmup)
        return (at + 1 / batches) / (warmup + 1 / batches)
    progress = (at - warmup) / (recipe.epochs - warmup)
    left = 1 - progress if schedule.shape == "linear" else _half_cosine(progress)
    return final + (1 - final) * left


def _half_cosine(progress: float) -> float:
    """Return a smooth fall from 1 at 0 to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))
