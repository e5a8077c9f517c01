"""Perturbations of the code where the encoder emits it: values are deleted, or moved in time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from codingbench.encoder import Encoder
from codingbench.errors import CodingbenchError

Code = Float[Tensor, "time batch *feature"]


def drop(code: Code, p: float, generator: Generator) -> Code:
    """Set each value to 0 with probability p, independently.

    One number is drawn for every value, even for zeros. With the same generator a larger p
    therefore deletes the same values and more.
    """
    return torch.where(_uniform(code, generator) < p, 0, code)


def jitter(code: Code, p: float, max_distance: int, generator: Generator) -> Code:
    """Move each non-zero value with probability p to another step, at most ``max_distance`` away.

    The new step is uniform among those within 0..T-1. A value stays where it is if its new step is
    already occupied, so no value is lost. Values of earlier steps move first.
    """
    num_steps = len(code)
    moves, where = _uniform(code, generator) < p, _uniform(code, generator)
    jittered = code.clone()
    for t in range(num_steps):
        first, last = max(0, t - max_distance), min(num_steps - 1, t + max_distance)
        if first == last:  # T = 1
            continue
        target = first + (where[t] * (last - first)).long()
        target = (target + (target >= t)).unsqueeze(0)  # one of first..last, except t
        present = jittered.gather(0, target)
        does_move = moves[t] & (code[t] != 0) & (present[0] == 0)
        jittered.scatter_(0, target, torch.where(does_move, code[t], present))
        jittered[t] = torch.where(does_move, 0, jittered[t])
    return jittered


@contextmanager
def perturbed(encoder: Encoder, perturb: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within this context, apply ``perturb`` to every code that the encoder emits.

    Raises:
        CodingbenchError: the encoder was not run, or its code bypassed ``self.code``.
    """
    passed = False

    def hook(module: torch.nn.Module, args: tuple[Tensor], code: Tensor) -> Tensor:
        nonlocal passed
        passed = True
        return perturb(code)

    with encoder.code.register_forward_hook(hook):
        yield
    if not passed:
        name = type(encoder).__name__
        raise CodingbenchError(f"the code of {name} does not pass through its base class")


def _uniform(code: Tensor, generator: Generator) -> Tensor:
    return torch.rand(code.shape, generator=generator, device=code.device)
