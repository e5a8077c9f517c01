"""Checks of where random numbers come from: the generator given, and nothing else."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from codingbench.backbone import Network
from codingbench.conformance.check import Failed, Skipped, check
from codingbench.conformance.independence import distance
from codingbench.conformance.subject import Subject, draws, global_seed
from codingbench.encoder import Encoder


@check(
    "generator",
    "chance is repeatable, and declared",
    "a cell could not be repeated, or averages over seeds would count chance that is not there",
    kinds=("encoder",),
    needs=("runs", "no memory"),
)
def generator(subject: Subject) -> str:
    """``is_deterministic`` is true of the coding."""
    varies = False
    for mode in (False, True):
        # each from a new network: what training changes is another check's matter
        first, again, other = (_code(subject, subject.network().train(mode), s) for s in (1, 1, 2))
        if not torch.equal(first, again):
            raise Failed("two generators in the same state give two codes")
        varies |= not torch.equal(first, other)
    declared = _is_deterministic(subject.network())
    if varies == declared:
        does = "does" if varies else "does not"
        raise Failed(f"is_deterministic = {declared}, but the code {does} depend on the generator")
    return "random, and repeatable" if varies else "deterministic"


def _code(subject: Subject, network: Network, seed: int) -> Tensor:
    """The code, with layers that differ in training by design as in evaluation."""
    for layer in network.modules():
        if isinstance(layer, _BatchNorm | _DropoutNd):
            layer.eval()
    return subject.output(network, subject.images(6), seed)


def _is_deterministic(network: Network) -> bool:
    encoder: Encoder = network.encoder
    return encoder.is_deterministic


@check(
    "no global chance",
    "global generators neither read nor moved",
    "a cell's numbers would depend on what else the process has run",
)
def no_global_chance(subject: Subject) -> str:
    """All random numbers are drawn from the generator given, in evaluation and training."""
    images = subject.images(4)
    for mode, name in ((False, "evaluation"), (True, "training")):
        seen = []
        for salt in (1, 2):
            network = subject.network().train(mode)
            with torch.no_grad(), global_seed(salt):
                before = _global_states()
                seen.append(subject.forward(network, images, draws()))
                after = _global_states()
            if moved := [library for library in before if after[library] != before[library]]:
                raise Failed(f"{name} draws from the global generator of {', '.join(moved)}")
        if not torch.equal(*seen):
            raise Failed(f"in {name} the result depends on a global generator")
    return "untouched"


def _global_states() -> dict[str, object]:
    """Of the libraries' global generators. Python's own is not looked at: checkers of types draw
    from it. What reads it shows in the result."""
    return {"torch": torch.get_rng_state().tolist(), "numpy": str(np.random.get_state())}


@check(
    "initial weights",
    "decided by the seed alone",
    "a cell could not be repeated, and codings would start from different backbones",
)
def initial_weights(subject: Subject) -> str:
    """Built twice with one seed, whatever the global generators, the weights are the same."""
    first = _weights(subject, 4, salt=1)
    _check_equal(first, _weights(subject, 4, salt=2), "built twice with one seed")
    if subject.kind == "backbone":
        _check_equal(first, _weights(subject, 2, salt=1), "at T = 2 and T = 4")
    return f"{len(first)} tensors, the same"


def _weights(subject: Subject, num_steps: int, salt: int) -> dict[str, Tensor]:
    try:
        scene = replace(subject.scene, num_steps=num_steps)
        network = subject.built(scene, salt=salt)
    except ValueError:
        return {}  # that T is refused
    return dict(subject.module(network).named_parameters())


def _check_equal(first: dict[str, Tensor], second: dict[str, Tensor], when: str) -> None:
    for name, value in first.items():
        other = second.get(name)
        if other is not None and other.shape == value.shape and not torch.equal(value, other):
            raise Failed(f"{when}, {name} differs")


@check(
    "same in training",
    "codes as in evaluation",
    "the network would be tested on another code than it is trained on",
    kinds=("encoder",),
    needs=("runs", "no memory"),
)
def same_in_training(subject: Subject) -> str:
    """A deterministic coding codes alike in both modes."""
    network = subject.network()
    if not _is_deterministic(network):
        raise Skipped("its code is random: training may draw otherwise by design")
    evaluated, trained = (_code(subject, network.train(mode), 0) for mode in (False, True))
    if not torch.equal(evaluated, trained):
        raise Failed(f"{100 * distance(evaluated, trained):.2g} % of it is different")
    return "the same"
