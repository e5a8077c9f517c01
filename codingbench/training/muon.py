"""Muon: steps of equal size in all directions of a filter, for the convolutions of a backbone.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
(kellerjordan.github.io/posts/muon), and cifar10-airbench of the same author. torch's own ``Muon``
accepts matrices only. This one takes filters, several of one shape at once, and reads its learning
rate from a tensor, as CUDA graphs need.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from codingbench.backbone import Network

_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
_ITERATIONS: Final = 5
"""torch's default. airbench does with 3, whose singular values spread more widely around 1."""

_LEAST_NORM: Final = 1e-7


def hidden_filters(network: nn.Module) -> list[nn.Parameter]:
    """Return the filters that Muon updates: those of 2-D convolutions outside the encoder.

    The encoder's convolutions are left out because its stem sees the image. An input layer belongs
    to the usual optimizer, by the advice of Muon's authors; airbench freezes it. The choice does
    not depend on the coding, so all codings train the same filters by Muon.
    """
    encoder = set(network.encoder.modules()) if isinstance(network, Network) else set()
    layers = (layer for layer in network.modules() if layer not in encoder)
    found = dict.fromkeys(layer.weight for layer in layers if isinstance(layer, nn.Conv2d))
    return [w for w in found if isinstance(w, nn.Parameter) and w.is_floating_point()]


class Muon(torch.optim.Optimizer):
    """Momentum whose direction is made orthogonal, for filters [out, in, height, width].

    With the momentum M of a filter, as a matrix of ``out`` rows:

        filter <- (1 - lr weight_decay) filter - lr sqrt(max(1, rows / columns)) orthogonal(M)

    Args:
        filters: parameters of at least two dimensions.
        lr: learning rate; on CUDA a tensor there, so that a CUDA graph sees later values.
        momentum: share of the earlier gradients in M.
        nesterov: look one step of the momentum ahead.
        weight_decay: decoupled, as in AdamW.
        normalises: before each step, scale each filter to the norm sqrt(out), as airbench does.
    """

    def __init__(
        self,
        filters: Iterable[nn.Parameter],
        lr: float | Tensor,
        *,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        normalises: bool = False,
    ) -> None:
        settings = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(filters, {"lr": lr, "normalises": normalises, **settings})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the filters that have a gradient; ``closure`` is not called."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for filters in group["params"]:
                if filters.grad is not None:
                    alike.setdefault(filters.shape, []).append(filters)
            for same_shape in alike.values():
                self._update(same_shape, group)

    def _update(self, filters: list[Tensor], group: dict[str, Any]) -> None:
        """Update filters of one shape."""
        if group["normalises"]:
            _normalise(filters)
        directions = orthogonal(torch.stack([m.flatten(1) for m in self._momentum(filters, group)]))
        rows, columns = directions.shape[1:]
        steps = directions * (group["lr"] * max(1.0, rows / columns) ** 0.5)
        torch._foreach_mul_(filters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_sub_(filters, list(steps.view(len(filters), *filters[0].shape)))

    def _momentum(self, filters: list[Tensor], group: dict[str, Any]) -> Sequence[Tensor]:
        """Add the gradients to the momentum, and return the momentum of every filter."""
        gradients = [f.grad for f in filters if f.grad is not None]
        for one, gradient in zip(filters, gradients, strict=True):
            if not self.state[one]:
                self.state[one]["momentum_buffer"] = torch.zeros_like(gradient)
        buffers = [self.state[one]["momentum_buffer"] for one in filters]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        if group["nesterov"]:
            return torch._foreach_lerp(gradients, buffers, group["momentum"])
        return buffers


def orthogonal(matrices: Tensor) -> Tensor:
    """Return U S' V^T for every matrix U S V^T, where the singular values S' are about 1.

    Newton and Schulz's iteration takes most singular values into 0.7 to 1.2, and small ones towards
    it; five iterations raise one of a thousandth of the Frobenius norm to about 1/2. It runs in
    bfloat16 on CUDA and in the precision of the matrices elsewhere.

    Args:
        matrices: [number, rows, columns], of real numbers.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=_LEAST_NORM)
    x = x.bfloat16() if x.is_cuda else x
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)


def _normalise(filters: Sequence[Tensor]) -> None:
    for one in filters:
        one.mul_(len(one) ** 0.5 / torch.linalg.vector_norm(one).clamp(min=_LEAST_NORM))
