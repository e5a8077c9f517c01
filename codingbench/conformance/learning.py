"""Checks of what a plug-in learns, and that it can be kept."""

import io

import torch
from torch import Tensor

from codingbench.backbone import Network
from codingbench.conformance.check import Failed, check
from codingbench.conformance.independence import distance
from codingbench.conformance.subject import Subject, draws, global_seed

_INITIALISATIONS = 3
_LEARNING_RATE = 0.1
_LOOKS = 2  # a branch that begins with weight 0 behind it gets gradients after one step


def loss_of(out: Tensor) -> Tensor:
    """A sum with fixed random weights, whose gradient no symmetry cancels."""
    weights = torch.randn(out.shape, generator=draws(1)).to(out.dtype)
    return (out * weights).mean()


@check(
    "gradients",
    "finite ones reach every parameter",
    "what gets none stays at its random initial weights",
)
def gradients(subject: Subject) -> str:
    """Each parameter that asks for a gradient gets one other than 0, from some initial weights, at
    the first step or the second."""
    missed = _without_gradient(subject, seed=0)
    for seed in range(1, _INITIALISATIONS):
        missed = missed and [n for n in _without_gradient(subject, seed) if n in missed]
    if missed:
        raise Failed(f"none reaches {_some(missed)}")
    return "all reached"


def _without_gradient(subject: Subject, seed: int) -> list[str]:
    network = subject.network(seed).train()
    asking = {n: p for n, p in subject.module(network).named_parameters() if p.requires_grad}
    optimizer, missed = torch.optim.SGD(network.parameters(), lr=_LEARNING_RATE), [*asking]
    for _ in range(_LOOKS):
        optimizer.zero_grad()
        with global_seed(seed):
            out = subject.forward(network, subject.images(6), draws(seed))
        if out.requires_grad:
            loss_of(out).backward()
        for name, parameter in asking.items():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                raise Failed(f"NaN or infinity for {name}")
        grads = {name: asking[name].grad for name in missed}
        missed = [name for name, grad in grads.items() if grad is None or not grad.any()]
        if not missed:
            break
        optimizer.step()
    return missed


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@check(
    "saved whole",
    "state_dict holds all that training changes",
    "a resumed training would be another one, and kept weights another network",
    needs=("runs", "no memory"),
)
def saved_whole(subject: Subject) -> str:
    """Trained a little, saved, and loaded into a new instance, it gives the same."""
    trained, fresh = subject.network(), subject.network()
    _train(subject, trained)
    buffer = io.BytesIO()
    torch.save(trained.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    fresh.load_state_dict(state)
    images = subject.images(4)
    for mode in ("evaluation", "training"):
        pair = [subject.output(n.train(mode == "training"), images) for n in (trained, fresh)]
        if not torch.equal(*pair):
            raise Failed(f"in {mode} the new instance differs by {100 * distance(*pair):.2g} %")
    return f"{len(state)} tensors are all"


def _train(subject: Subject, network: Network) -> None:
    """A few steps of gradient descent on batches of several sizes."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=_LEARNING_RATE)
    for seed, count in enumerate((5, 3, 4)):
        with global_seed(seed):
            out = subject.forward(network, subject.images(count, first=seed), draws(seed))
        optimizer.zero_grad()
        if out.requires_grad:
            loss_of(out).backward()
        optimizer.step()
