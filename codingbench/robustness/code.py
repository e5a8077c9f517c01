"""The code perturbed where the encoder emits it: values deleted, or moved in time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from codingbench.encoder import Encoder
from codingbench.errors import CodingbenchError

Code = Float[Tensor, "time batch *feature"]


def drop(code: Code, p: float, generator: Generator) -> Code:
    """Each value is set to 0 with probability p, independently.

    Draws a number for every value, 0 or not; with the same generator a larger p deletes the same
    values and more.
    """
    return torch.where(_uniform(code, generator) < p, 0, code)


def jitter(code: Code, p: float, most: int, generator: Generator) -> Code:
    """Each non-zero value moves with probability p to another step, 1 to ``most`` steps off.

    The step is uniform among those within 0..T-1. A value whose step is taken stays where it is:
    all values are there afterwards, in as many steps as before. Earlier values move first.
    """
    num_steps = len(code)
    moves, where = _uniform(code, generator) < p, _uniform(code, generator)
    jittered = code.clone()
    for t in range(num_steps):
        first, last = max(0, t - most), min(num_steps - 1, t + most)
        if first == last:  # T = 1
            continue
        target = first + (where[t] * (last - first)).long()
        target = (target + (target >= t)).unsqueeze(0)  # one of first..last, but not t
        there = jittered.gather(0, target)
        does_move = moves[t] & (code[t] != 0) & (there[0] == 0)
        jittered.scatter_(0, target, torch.where(does_move, code[t], there))
        jittered[t] = torch.where(does_move, 0, jittered[t])
    return jittered


@contextmanager
def perturbed(encoder: Encoder, perturb: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, what the encoder emits is perturbed before anything sees it.

    Raises:
        CodingbenchError: nothing passed through the base class meanwhile.
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
