"""Checks that all random numbers come from the generator that the plug-in is given."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from codingbench.backbone import Network
from codingbench.cells.probe import generator_of, seeded
from codingbench.conformance.check import Failed, Skipped, check
from codingbench.conformance.independence import distance
from codingbench.conformance.plugin import PluginUnderTest
from codingbench.encoder import Encoder


@check(
    "generator",
    "repeatable codes, correct is_deterministic",
    "cells could not be repeated, or averages over seeds would assume randomness that is absent",
    kinds=("encoder",),
    needs=("runs", "no memory"),
)
def generator(tested: PluginUnderTest) -> str:
    """Compare codes of equal and different generators with ``is_deterministic``."""
    varies = False
    for mode in (False, True):
        # each from a new network, because training may change it
        first, again, other = (_code(tested, tested.network().train(mode), s) for s in (1, 1, 2))
        if not torch.equal(first, again):
            raise Failed("two generators in the same state give different codes")
        varies |= not torch.equal(first, other)
    declared = _is_deterministic(tested.network())
    if varies == declared:
        depends = "depends" if varies else "does not depend"
        raise Failed(f"is_deterministic = {declared}, but the code {depends} on the generator")
    return "random and repeatable" if varies else "deterministic"


def _code(tested: PluginUnderTest, network: Network, seed: int) -> Tensor:
    """Return the code, with batch norm and dropout as in evaluation mode."""
    for layer in network.modules():
        if isinstance(layer, _BatchNorm | _DropoutNd):
            layer.eval()
    return tested.output(network, tested.images(6), seed)


def _is_deterministic(network: Network) -> bool:
    encoder: Encoder = network.encoder
    return encoder.is_deterministic


@check(
    "global generators",
    "global random generators are neither read nor advanced",
    "the results of a cell would depend on what else the process has run",
)
def no_global_randomness(tested: PluginUnderTest) -> str:
    """Run with different global generators, in evaluation and training mode."""
    images = tested.images(4)
    for mode, name in ((False, "evaluation"), (True, "training")):
        seen = []
        for seed in (1, 2):
            network = tested.network().train(mode)
            with torch.no_grad(), seeded(seed):
                before = _global_states()
                seen.append(tested.forward(network, images, generator_of()))
                after = _global_states()
            if advanced := [library for library in before if after[library] != before[library]]:
                raise Failed(
                    f"{name} mode draws from the global generator of {', '.join(advanced)}"
                )
        if not torch.equal(*seen):
            raise Failed(f"in {name} mode, the result depends on a global generator")
    return "neither read nor advanced"


def _global_states() -> dict[str, object]:
    """Return the states of the global generators of torch and numpy.

    Python's own is left out, because type checkers advance it; reading it changes the result.
    """
    return {"torch": torch.get_rng_state().tolist(), "numpy": str(np.random.get_state())}


@check(
    "initial weights",
    "the seed alone determines them",
    "cells could not be repeated, and codings would start from different backbones",
)
def initial_weights(tested: PluginUnderTest) -> str:
    """Build twice with the same seed but different global generators, and compare the weights."""
    first = _weights(tested, 4, global_seed=1)
    _check_equal(first, _weights(tested, 4, global_seed=2), "when built twice with one seed")
    if tested.kind == "backbone":
        _check_equal(first, _weights(tested, 2, global_seed=1), "between T = 2 and T = 4")
    return f"{len(first)} equal tensors"


def _weights(tested: PluginUnderTest, num_steps: int, global_seed: int) -> dict[str, Tensor]:
    try:
        scene = replace(tested.scene, num_steps=num_steps)
        network = tested.build(scene, global_seed=global_seed)
    except ValueError:
        return {}  # the plug-in refuses that T
    return dict(tested.module(network).named_parameters())


def _check_equal(first: dict[str, Tensor], second: dict[str, Tensor], when: str) -> None:
    for name, value in first.items():
        other = second.get(name)
        if other is not None and other.shape == value.shape and not torch.equal(value, other):
            raise Failed(f"{name} differs {when}")


@check(
    "same in training",
    "the same code as in evaluation mode",
    "the network would be tested on another code than it was trained on",
    kinds=("encoder",),
    needs=("runs", "no memory"),
)
def same_in_training(tested: PluginUnderTest) -> str:
    """Compare the codes of both modes, unless the coding is random."""
    network = tested.network()
    if not _is_deterministic(network):
        raise Skipped("its code is random, and training may use other random numbers")
    evaluated, trained = (_code(tested, network.train(mode), 0) for mode in (False, True))
    if not torch.equal(evaluated, trained):
        raise Failed(f"the codes differ by {100 * distance(evaluated, trained):.2g} %")
    return "the same code"
