"""Spikformer: its size, the paper's network, its attention by brute force, and learning."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codingbench.backbone import Network, build_network
from codingbench.conformance.images import Scene
from codingbench.counting.counter import OperationCounter
from codingbench.encoder import Task
from codingbench.registry import BACKBONES, ENCODERS

SMALL = "spikformer[blocks=2,width=16,heads=2]"


def make(backbone: str = SMALL, encoder: str = "direct", *, side: int = 16, num_steps: int = 3,
         num_classes: int = 10) -> Network:  # fmt: skip
    task = Task(num_steps, num_classes, 3, side, side, (0.5,) * 3, (0.25,) * 3)
    return build_network(ENCODERS.resolve(encoder), BACKBONES.resolve(backbone), task, seed=0)


def images(count: int, side: int = 16) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "blocks, width, classes, expected",
    [(2, 256, 10, 2_563_882), (4, 256, 10, 4_145_962), (2, 128, 100, None), (3, 64, 10, None)],
)
def test_the_number_of_parameters_is_that_of_the_formula(
    blocks: int, width: int, classes: int, expected: int | None
) -> None:
    """With 4 blocks of 256 channels the paper has 4.15 M (table 3, Spikformer-4-256)."""
    channels = [3, width // 8, width // 4, width // 2, width, width]
    convolutions = sum(9 * a * b + 2 * b for a, b in pairwise(channels))
    block = 12 * width**2 + 2 * (3 + 1 + 4 + 1) * width
    formula = convolutions + blocks * block + (width + 1) * classes
    network = make(f"spikformer[blocks={blocks},width={width}]", num_classes=classes)
    assert sum(p.numel() for p in network.parameters()) == formula == (expected or formula)


def jelly(side: int, num_steps: int) -> nn.Module:
    """Return SpikingJelly's Spikformer with the poolings behind the neurons, as in the paper."""
    from spikingjelly.activation_based import layer
    from spikingjelly.activation_based.model.spikformer import Spikformer

    theirs: nn.Module = Spikformer(
        T=num_steps, img_size_h=side, img_size_w=side, patch_size=4, num_classes=10,
        embed_dims=16, num_heads=2, depths=2,
    )  # fmt: skip
    stages: Any = theirs.get_submodule("patch_embed.stages")
    for index in (2, 3):
        pool = stages[index].conv_bn.block[2]
        stages[index].conv_bn.block = nn.Sequential(*stages[index].conv_bn.block[:2])
        stages[index].conv_bn.block = layer.SeqToANNContainer(*stages[index].conv_bn.block)
        stages[index] = nn.Sequential(stages[index], layer.SeqToANNContainer(pool))
    return theirs


def test_logits_and_gradients_are_those_of_spikingjelly() -> None:
    """Same network: its neurons halve the input, which scales all numbers exactly."""
    ours, theirs = make().train(), jelly(16, 3).train()
    # the stem's neuron is the encoder's; 0.4 passes its spikes unchanged
    parameters = [*ours.encoder.stem.parameters(), *ours.backbone.parameters()]
    for target, source in zip(theirs.parameters(), parameters, strict=True):
        target.data.copy_(source.data.view_as(target))
    logits = ours(images(4), torch.Generator())
    expected = theirs((images(4) - 0.5) / 0.25)
    assert logits.std() > 0
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    weights = torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)
    gradients = torch.autograd.grad((logits * weights).sum(), parameters)
    others = torch.autograd.grad((expected * weights).sum(), [*theirs.parameters()])
    for gradient, other in zip(gradients[3:], others[3:], strict=True):
        torch.testing.assert_close(gradient.view_as(other), other, rtol=1e-3, atol=1e-5)


def test_the_attention_is_that_of_the_paper_whatever_the_order_of_its_products() -> None:
    """Equation 6 of the paper, head by head: Q K^T V, rows are tokens."""
    block: Any = make().backbone.get_submodule("blocks.0")
    generator = torch.Generator().manual_seed(0)
    spk = (torch.rand(2, 3, 48, 4, 4, generator=generator) < 0.3).float()
    found = block.attend(spk)
    for t, image, head in [(0, 0, 0), (1, 2, 1), (0, 1, 1)]:
        rows = spk[t, image].flatten(1).T  # tokens x 48
        q, k, v = (rows[:, start + 8 * head : start + 8 * head + 8] for start in (0, 16, 32))
        expected = torch.zeros(16, 8)
        for token in range(16):
            for other in range(16):
                expected[token] += (q[token] * k[other]).sum() * v[other]
        assert torch.equal(found[t, image, 8 * head : 8 * head + 8].flatten(1).T, expected)


def test_products_of_the_attention_are_counted_as_by_brute_force() -> None:
    network = make(encoder="rate").train()
    block = network.backbone.get_submodule("blocks.0")
    seen: list[Tensor] = []
    block.get_submodule("qkv").register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad(), OperationCounter(network, num_steps=3) as counter:
        network(images(5), torch.Generator().manual_seed(0))
    assert not counter.uncounted()
    q, k, v = seen[0].flatten(3).unflatten(2, (3, 2, 8)).unbind(2)
    sums = torch.einsum("tbhcn,tbhdn->tbhcd", v, k)
    reached = [
        # among spikes a product needs both; a sum is a weight, which any spike reaches
        float(now.sum() * 8 if sums[t].max() > 1 else (sums[t] @ now).sum())
        for t, now in enumerate(q)
    ]
    rows = [
        row
        for row in counter.layer_rows()
        if row["layer"] == "backbone.blocks.0" and row["kind"] == "synapse"
    ]
    expected = [float(sums[t].sum()) + reached[t] for t in range(3)]
    assert [row["effective_binary"] for row in rows] == expected
    assert expected[0] == 0 < expected[1] < expected[2]
    # (V K^T) and (V K^T) Q: 2 heads x 8 x 8 x 16 tokens each, of 5 images
    assert [row["dense_binary"] for row in rows] == [2 * 5 * 2 * 8 * 8 * 16] * 3


@pytest.mark.parametrize(
    "options, side, num_steps, message",
    [
        ("blocks=0", 16, 2, "blocks and heads must be at least 1, got 0 and 8"),
        ("width=20", 16, 2, "width must be a multiple of 8 and of heads=8, got 20"),
        ("width=64,heads=3", 16, 2, "multiple of 8 and of heads=3, got 64"),
        ("width=16", 4, 1, "at T = 1 images must be larger than 4x4, got 4x4"),
    ],
)
def test_what_cannot_be_built_is_refused(
    options: str, side: int, num_steps: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(f"spikformer[{options}]", side=side, num_steps=num_steps)


@pytest.mark.parametrize("side, num_steps", [(5, 1), (2, 2), (17, 2)])
def test_the_smallest_and_odd_images_train(side: int, num_steps: int) -> None:
    logits = make(side=side, num_steps=num_steps).train()(images(1, side), torch.Generator())
    assert logits.shape == (num_steps, 1, 10) and logits.isfinite().all()


@pytest.mark.parametrize("encoder", ["direct", "gac", "latency"])
def test_eight_images_are_learnt_and_every_parameter_has_a_gradient(encoder: str) -> None:
    scene = Scene(3, 16, 16, num_steps=4)
    pixels, labels = scene.images(8), torch.arange(8)
    network = build_network(
        ENCODERS.resolve(encoder),
        BACKBONES.resolve("spikformer[blocks=2,width=32,heads=2]"),
        scene.task(),
        seed=0,
    ).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    losses = []
    for iteration in range(40):
        logits = network(pixels, torch.Generator().manual_seed(iteration))
        loss = F.cross_entropy(logits.mean(0), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < losses[0] / 4
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
