"""Checks that a plug-in can be trained, and that its state can be saved."""

import io

import torch
from torch import Tensor

from codingbench.backbone import Network
from codingbench.cells.probe import generator_of, seeded
from codingbench.conformance.check import Failed, check
from codingbench.conformance.independence import distance
from codingbench.conformance.plugin import PluginUnderTest

_INITIALISATIONS = 3
_LEARNING_RATE = 0.1
_STEPS = 2  # a branch that is multiplied by an initial weight of 0 gets gradients at the second


def loss_of(out: Tensor) -> Tensor:
    """Return a mean with fixed random weights, so that no symmetry cancels its gradient."""
    weights = torch.randn(out.shape, generator=generator_of(1)).to(out.dtype)
    return (out * weights).mean()


@check(
    "gradients",
    "every parameter gets a finite, non-zero gradient",
    "parameters without a gradient keep their random initial values",
)
def gradients(tested: PluginUnderTest) -> str:
    """Look for each parameter's gradient from several initial weights, in two training steps."""
    missed = _without_gradient(tested, seed=0)
    for seed in range(1, _INITIALISATIONS):
        missed = missed and [n for n in _without_gradient(tested, seed) if n in missed]
    if missed:
        raise Failed(f"no gradient for {_some(missed)}")
    return "all parameters get one"


def _without_gradient(tested: PluginUnderTest, seed: int) -> list[str]:
    network = tested.network(seed).train()
    trainable = {n: p for n, p in tested.module(network).named_parameters() if p.requires_grad}
    optimizer, missed = torch.optim.SGD(network.parameters(), lr=_LEARNING_RATE), [*trainable]
    for _ in range(_STEPS):
        optimizer.zero_grad()
        with seeded(seed):
            out = tested.forward(network, tested.images(6), generator_of(seed))
        if out.requires_grad:
            loss_of(out).backward()
        for name, parameter in trainable.items():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                raise Failed(f"the gradient of {name} contains NaN or infinity")
        grads = {name: trainable[name].grad for name in missed}
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
    "resumed trainings would continue differently, and saved weights give another network",
    needs=("runs", "no memory"),
)
def saved_whole(tested: PluginUnderTest) -> str:
    """Train for a few steps, load the state into a new instance, and compare the results."""
    trained, fresh = tested.network(), tested.network()
    _train(tested, trained)
    buffer = io.BytesIO()
    torch.save(trained.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    fresh.load_state_dict(state)
    images = tested.images(4)
    for mode in ("evaluation", "training"):
        pair = [tested.output(n.train(mode == "training"), images) for n in (trained, fresh)]
        if not torch.equal(*pair):
            difference = 100 * distance(*pair)
            raise Failed(f"in {mode} mode, the result after loading differs by {difference:.2g} %")
    return f"{len(state)} tensors hold everything"


def _train(tested: PluginUnderTest, network: Network) -> None:
    """Take a few steps of gradient descent on batches of several sizes."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=_LEARNING_RATE)
    for seed, count in enumerate((5, 3, 4)):
        with seeded(seed):
            out = tested.forward(network, tested.images(count, first=seed), generator_of(seed))
        optimizer.zero_grad()
        if out.requires_grad:
            loss_of(out).backward()
        optimizer.step()
