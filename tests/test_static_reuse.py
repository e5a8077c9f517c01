"""Layers with the same input at every step run once per image, with the same results.

The reference repeats them at every step. It is written from the papers, in functional torch and
with snntorch's neuron; it shares the weights but no code.

Batch normalisation over T copies of a batch has the same mean and biased variance as over the
batch, so outputs and gradients are also the same in training. Only the running variance differs: it
uses the unbiased variance, var n / (n - 1), where n includes the copies.
"""

from collections import Counter
from typing import Any

import pytest
import snntorch
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from codingbench.backbone import build_network
from codingbench.encoder import Encoder, Task
from codingbench.neurons import triangle
from codingbench.registry import BACKBONES, ENCODERS

BATCH, SIDE, WIDTH = 3, 8, 6
MOMENTUM = 0.1  # of the running statistics
CODINGS = ("gac", "gac[kernel_size=3,channel_reduction=2]", "direct", "direct[spiking=false]")


def encoder(text: str, num_steps: int) -> Any:
    """Return the coding with its stem, in double precision, with trained scales of the stem."""
    task = Task(num_steps, 10, 3, SIDE, SIDE, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    backbone = BACKBONES.resolve(f"csnn[width={WIDTH}]")
    made = build_network(ENCODERS.resolve(text), backbone, task, seed=1).encoder.double()
    draws = torch.Generator().manual_seed(2)
    norm: Any = made.stem[1]  # type: ignore[index]
    with torch.no_grad():
        for scale in (norm.weight, norm.running_var):
            scale.uniform_(1, 2, generator=draws)
        for offset in (norm.bias, norm.running_mean):
            offset.normal_(generator=draws)
    return made


def repeated(coding: Any, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the code [T, B, C, H, W] if every step is computed, and the running statistics."""
    num_steps = coding.num_steps
    standard = (images - coding.mean) / coding.std
    conv, norm = coding.stem
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    every_step = F.conv2d(standard.repeat(num_steps, 1, 1, 1), conv.weight, padding=1)
    scales = norm.weight, norm.bias, coding.training, MOMENTUM
    y = F.batch_norm(every_step, mean, var, *scales).unflatten(0, (num_steps, BATCH))
    if coding.neuron is None:
        return y, mean, var
    spk = spikes(y)
    return (spk * gate(coding, y) if hasattr(coding, "spatial") else spk), mean, var


def spikes(cur: Tensor) -> Tensor:
    """Run snntorch's neuron step by step, starting from a membrane of zero."""
    neuron = snntorch.Leaky(
        beta=0.5, spike_grad=triangle, reset_mechanism="zero", reset_delay=False
    )
    mem, train = torch.zeros_like(cur[0]), []
    for step in cur:
        spk, mem = neuron(step, mem)
        train.append(spk)
    return torch.stack(train)


def gate(coding: Any, y: Tensor) -> Tensor:
    """Return sigmoid(TA * SCA) of the paper: TA from T poolings of T steps, SCA at every step."""
    hidden, out = coding.temporal[0].weight, coding.temporal[2].weight
    mean, largest = y.mean((2, 3, 4)), y.amax((2, 3, 4))  # (time, batch)
    attention = sum(out @ F.relu(hidden @ pooled) for pooled in (mean, largest))
    maps = []
    for step in y:
        inner = F.relu(padded_conv(step, coding.spatial[1].weight))
        maps.append(padded_conv(inner, coding.spatial[4].weight))
    return torch.sigmoid(attention[:, :, None, None, None] * torch.stack(maps))


def padded_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve to the same size; an even kernel pads one more at the right and bottom."""
    kernel = weight.shape[-1]
    before, after = (kernel - 1) // 2, kernel // 2
    return F.conv2d(F.pad(x, (before, after, before, after)), weight)


def images() -> Tensor:
    draws = torch.Generator().manual_seed(3)
    return torch.rand(BATCH, 3, SIDE, SIDE, generator=draws, dtype=torch.double)


def gradients(code: Tensor, by: list[Tensor]) -> tuple[Tensor, ...]:
    """Return gradients of a sum that weights every step, image and position differently."""
    draws = torch.Generator().manual_seed(4)
    weights = torch.randn(code.shape, generator=draws, dtype=code.dtype)
    return torch.autograd.grad((code * weights).sum(), by)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("num_steps", [1, 2, 4, 6])
@pytest.mark.parametrize("text", CODINGS)
def test_code_and_all_gradients_are_those_of_the_repeated_form(
    text: str, num_steps: int, training: bool
) -> None:
    coding, x = encoder(text, num_steps).train(training), images().requires_grad_()
    expected, _, _ = repeated(coding, x)
    code = coding(x, torch.Generator())
    torch.testing.assert_close(code, expected, rtol=1e-10, atol=1e-10)
    assert (code != 0).double().mean() > 0.05 and code.unique().numel() > 1
    by = [x, *coding.parameters()]
    for name, ours, theirs in zip(
        ["image", *dict(coding.named_parameters())],
        gradients(code, by),
        gradients(expected, by),
        strict=True,
    ):
        # at T = 1 a dead hidden unit may leave the temporal weights without a gradient
        assert ours.any() or name.startswith("temporal"), f"{name} has no gradient"
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_steps", [1, 2, 6])
def test_running_variance_alone_knows_how_often_the_stem_ran(num_steps: int) -> None:
    coding = encoder("gac", num_steps).train()
    before = coding.stem[1].running_var.clone()
    _, mean, var = repeated(coding, images())
    coding(images(), torch.Generator())
    found = coding.stem[1]
    torch.testing.assert_close(found.running_mean, mean, rtol=1e-12, atol=1e-12)
    values = BATCH * SIDE * SIDE  # of a channel
    fed_once = (found.running_var - (1 - MOMENTUM) * before) / MOMENTUM
    fed_repeatedly = (var - (1 - MOMENTUM) * before) / MOMENTUM
    copies = values * num_steps
    biased = fed_once * (values - 1) / values
    torch.testing.assert_close(biased, fed_repeatedly * (copies - 1) / copies)
    assert torch.equal(fed_once, fed_repeatedly) == (num_steps == 1)


class Convolutions(TorchDispatchMode):
    """Count the convolved images, forward and backward, by the shape of the weights."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.forward_images: Counter[tuple[int, ...]] = Counter()
        self.backward_images: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.forward_images[tuple(args[1].shape)] += len(args[0])
        if func is torch.ops.aten.convolution_backward.default:
            self.backward_images[tuple(args[2].shape)] += len(args[0])
        return func(*args, **(kwargs or {}))


STEM = (WIDTH, 3, 3, 3)
TWICE = (WIDTH, WIDTH, 4, 4)  # both of GAC's spatial convolutions have this shape


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    "text, convolved",
    [
        ("gac", {STEM: BATCH, TWICE: 2 * BATCH}),
        ("direct", {STEM: BATCH}),
        ("direct[spiking=false]", {STEM: BATCH}),
        ("latency", {STEM: 5 * BATCH}),  # its spikes differ from step to step
    ],
)
def test_stem_and_spatial_attention_convolve_each_image_once(
    text: str, convolved: dict[tuple[int, ...], int], training: bool
) -> None:
    coding: Encoder = encoder(text, num_steps=5).train(training)
    with Convolutions() as seen:
        coding(images(), torch.Generator()).sum().backward()
    assert seen.forward_images == seen.backward_images == convolved
