"""Random networks have equal counts by our counter, NeuroBench's rule and SpikingJelly, for each
layer and step."""

import random
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import snntorch
import torch
from torch import Tensor, nn

from codingbench.neurons import MultiStepLeaky
from codingbench.schema import VALUE_CLASSES

Case = tuple[nn.Module, int, Tensor]
Draws = random.Random
Shape = tuple[int, ...]

NETWORKS = 300

pytestmark = pytest.mark.usefixtures("one_thread")


# --- what stands between synapses -----------------------------------------------------------------


class Apply(nn.Module):
    """A layer that applies a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(x)
        return y


def spike(x: Tensor) -> Tensor:
    return (x > 0.2).to(x.dtype)


def signed_spike(x: Tensor) -> Tensor:
    return (x > 0.2).to(x.dtype) - (x < -0.2).to(x.dtype)


def sum_of_spikes(x: Tensor) -> Tensor:
    """A residual connection: 0, 1 or 2."""
    return spike(x) + spike(x).roll(1, 1)


def added_in_place(x: Tensor) -> Tensor:
    """Return the spikes with a sign, written into the memory of the neuron's output."""
    return x.add_(x.roll(1, 1))


def leaky(draws: Draws, is_looped: bool) -> nn.Module:
    reset = draws.choice(["zero", "subtract", "none"])
    neuron = snntorch.Leaky if is_looped else MultiStepLeaky
    made: nn.Module = neuron(beta=0.6, threshold=0.2, reset_mechanism=reset)
    return made


def between(draws: Draws, shape: Shape, is_looped: bool) -> list[nn.Module]:
    kinds = ["nothing", "relu", "spike", "signed", "sum", "in place", "leaky"]
    if len(shape) == 3:
        kinds += ["leaky", "norm"] + ["avg", "max"] * (min(shape[1:]) > 1)
    kind = draws.choice(kinds)
    layers: dict[str, Callable[[], list[nn.Module]]] = {
        "nothing": lambda: [],
        "relu": lambda: [nn.ReLU()],
        "spike": lambda: [Apply(spike)],
        "signed": lambda: [Apply(signed_spike)],
        "sum": lambda: [Apply(sum_of_spikes)],
        "in place": lambda: [leaky(draws, is_looped), Apply(added_in_place)],
        "leaky": lambda: [leaky(draws, is_looped)],
        "norm": lambda: [leaky(draws, is_looped), nn.BatchNorm2d(shape[0])],
        "avg": lambda: [leaky(draws, is_looped), nn.AvgPool2d(2, stride=1)],
        "max": lambda: [Apply(draws.choice([spike, signed_spike])), nn.MaxPool2d(2, stride=1)],
    }
    return layers[kind]()


# --- synapses -------------------------------------------------------------------------------------


def convolution(draws: Draws, shape: Shape) -> nn.Module:
    channels = shape[0]
    groups = draws.choice([g for g in (1, 1, 2, channels) if channels % g == 0])
    out = groups * draws.randint(1, max(1, 8 // groups))
    kernel = draws.randint(1, 3), draws.randint(1, 3)
    # The padding fits the dilated kernel, however small the image has become.
    return nn.Conv2d(
        channels,
        out,
        kernel,
        stride=(draws.randint(1, 2), draws.randint(1, 2)),
        padding=(draws.randint(kernel[0] - 1, 2), draws.randint(kernel[1] - 1, 2)),
        dilation=(draws.randint(1, 2), draws.randint(1, 2)),
        groups=groups,
        bias=draws.random() < 0.5,
        padding_mode=draws.choice(["zeros", "zeros", "zeros", "replicate"]),
    )


def same_convolution(draws: Draws, shape: Shape) -> nn.Module:
    return nn.Conv2d(shape[0], draws.randint(1, 6), (3, 1), padding="same", dilation=(1, 2))


def depthwise(draws: Draws, shape: Shape) -> nn.Module:
    channels = shape[0]
    return nn.Conv2d(channels, channels * draws.randint(1, 2), 3, padding=1, groups=channels)


def linear(draws: Draws, shape: Shape) -> nn.Module:
    """A layer on the last axis, with any axes before it."""
    return nn.Linear(shape[-1], draws.randint(2, 6), bias=draws.random() < 0.5)


def one_dimensional(draws: Draws, shape: Shape) -> nn.Module:
    return nn.Conv1d(shape[0], draws.randint(1, 6), draws.randint(1, 3), padding=1)


# --- networks -------------------------------------------------------------------------------------


class RandomNetwork(nn.Module):
    """A network for images [B, T, ...] that runs step by step, as in snntorch, or folds time."""

    def __init__(self, layers: list[nn.Module], is_looped: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.is_looped = is_looped

    def forward(self, images: Tensor) -> Tensor:
        steps = images.transpose(0, 1)
        return self.looped(steps) if self.is_looped else self.folded(steps)

    def looped(self, steps: Tensor) -> Tensor:
        mem: dict[nn.Module, Any] = {}
        for x in steps.unbind():
            for layer in self.layers:
                if isinstance(layer, snntorch.Leaky):
                    x, mem[layer] = layer(x, mem.get(layer, torch.zeros_like(x)))
                else:
                    x = layer(x)
        return x

    def folded(self, steps: Tensor) -> Tensor:
        x: Tensor = steps.flatten(0, 1)
        for layer in self.layers:
            if isinstance(layer, MultiStepLeaky):
                x = layer(x.unflatten(0, steps.shape[:2])).flatten(0, 1)
            else:
                x = layer(x)
        return x


@cache
def random_case(seed: int) -> Case:
    draws = Draws(seed)
    torch.manual_seed(seed)
    num_steps, batch, is_looped = draws.randint(1, 3), draws.randint(1, 3), draws.random() < 0.5
    shape: Shape = (draws.randint(1, 5), draws.randint(4, 7), draws.randint(4, 7))
    images = torch.randn(batch, num_steps, *shape)
    layers: list[nn.Module] = []

    def put(*more: nn.Module) -> None:
        nonlocal shape
        layers.extend(more)
        with torch.no_grad():
            for layer in more:
                x = torch.zeros(1, *shape)
                shape = (x if isinstance(layer, snntorch.Leaky) else layer.eval()(x)).shape[1:]

    for _ in range(draws.randint(1, 4)):
        put(*between(draws, shape, is_looped))
        if len(shape) == 3 and draws.random() < 0.2:
            put(nn.Flatten(draws.choice([1, 2])))
        synapses = [[], [one_dimensional], [convolution] * 4 + [same_convolution, depthwise]]
        # T images of T rows, one step at a time, would look like all T steps of T images.
        is_clear = num_steps == 1 or not num_steps == batch == shape[0]
        choices = synapses[len(shape) - 1] + [linear] * is_clear
        if not choices:
            break
        before, layer = shape, draws.choice(choices)(draws, shape)
        put(layer)
        if shape == before and draws.random() < 0.5:
            put(Apply(signed_spike), layer)  # the same layer used twice
    return RandomNetwork(layers, is_looped), num_steps, images


@cache
def counted(seed: int, our_steps: Any) -> dict[tuple[str, int], dict[str, int]]:
    counts: dict[tuple[str, int], dict[str, int]] = our_steps(*random_case(seed))
    return counts


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_neurobench_counts_the_same_in_every_layer_and_step(
    seed: int, our_steps: Any, neurobench_steps: Any
) -> None:
    ours = {
        cell: (of["binary"] + of["signed"], of["level"] + of["real"])
        for cell, of in counted(seed, our_steps).items()
    }
    assert ours == neurobench_steps(*random_case(seed))


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_spikingjelly_counts_the_same_in_every_layer_and_step(
    seed: int, our_steps: Any, spikingjelly_steps: Any, spikingjelly: Any
) -> None:
    network, num_steps, images = random_case(seed)
    ours = {cell: of["binary"] for cell, of in counted(seed, our_steps).items()}
    assert ours == spikingjelly_steps(network, num_steps, images)
    if network.is_looped:  # it also sees one step at a time
        assert sum(ours.values()) == spikingjelly(network, images)


def traits(seed: int) -> set[str]:
    """Return the names of the features of a network."""
    network, num_steps, images = random_case(seed)
    found = {f"T = {num_steps}", f"batch of {len(images)}", f"looped: {network.is_looped}"}
    layers: Any = network.layers
    if len(set(layers)) < len(layers):
        found.add("a layer in two places")
    for layer in layers:
        found.add(type(layer).__name__)
        if isinstance(layer, Apply):
            found.add(layer.function.__name__)
        if isinstance(layer, nn.Conv2d):
            found |= {
                f"{name} {getattr(layer, name)}"
                for name in ("stride", "dilation", "padding", "padding_mode", "groups")
            }
        if isinstance(layer, nn.Conv2d | nn.Linear):
            found.add("bias" if layer.bias is not None else "no bias")
    return found


@pytest.mark.parametrize(
    "traits_sought",
    [
        ["T = 1", "T = 2", "T = 3", "batch of 1", "batch of 2", "batch of 3"],
        ["looped: True", "looped: False", "Leaky", "MultiStepLeaky"],
        ["ReLU", "AvgPool2d", "MaxPool2d", "BatchNorm2d", "Flatten"],
        ["sum_of_spikes", "added_in_place", "signed_spike", "a layer in two places"],
        ["Conv1d", "Conv2d", "Linear", "bias", "no bias"],
        ["stride (2, 1)", "dilation (1, 2)", "padding (2, 1)", "padding same"],
        ["groups 2", "groups 3", "padding_mode replicate"],
    ],
)
def test_every_kind_of_layer_and_setting_is_among_them(traits_sought: list[str]) -> None:
    found = Counter(trait for seed in range(NETWORKS) for trait in traits(seed))
    assert {trait: found[trait] for trait in traits_sought if found[trait] < 10} == {}


def test_every_value_class_is_among_them_and_no_network_is_silent(our_steps: Any) -> None:
    networks_with, operations, silent = Counter[str](), Counter[str](), []
    for seed in range(NETWORKS):
        seen = Counter[str]()
        for of in counted(seed, our_steps).values():
            seen.update(of)
        operations.update(seen)
        networks_with.update(c for c in VALUE_CLASSES if seen[c])
        silent += [seed] * (seen.total() == 0)
    assert silent == []
    assert min(operations[c] for c in VALUE_CLASSES) > 10_000
    assert min(networks_with[c] for c in VALUE_CLASSES) > NETWORKS // 5
