"""Perturbations of images and codes, compared with hand-computed numbers and another library."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from codingbench.backbone import Network, build_network
from codingbench.encoder import Task
from codingbench.errors import CodingbenchError
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.robustness.code import drop, jitter, perturbed
from codingbench.robustness.gradients import ImageGradient, has_gradient, straight_through
from codingbench.robustness.sign_gradient import fgsm, pgd

pytestmark = pytest.mark.usefixtures("one_thread")

TASK = Task(num_steps=3, num_classes=4, channels=1, height=8, width=8, mean=(0.3,), std=(0.4,))


def draws(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def network(encoder: str) -> Network:
    built = build_network(ENCODERS.resolve(encoder), BACKBONES.resolve("csnn[width=4]"), TASK, 0)
    return built.eval().requires_grad_(False)


def pictures(count: int = 6) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=draws(1))


class Linear(nn.Module):
    """A network with two logits: the sums of the left and of the right half of the image."""

    def forward(self, images: Tensor, generator: Any = None) -> Tensor:
        left, right = images.flatten(1).chunk(2, 1)
        return torch.stack([left.sum(1), right.sum(1)], 1).unsqueeze(0)  # one step


def linear_gradient(images: Tensor, label: int) -> Tensor:
    x = images.detach().requires_grad_()
    labels = torch.full((len(x),), label)
    (gradient,) = torch.autograd.grad(F.cross_entropy(Linear()(x)[0], labels), x)
    return gradient


# --- attacks --------------------------------------------------------------------------------------


def test_fgsm_of_a_linear_network_lowers_the_label_and_raises_the_other() -> None:
    images = torch.tensor([[[[0.5, 0.05, 0.5, 0.95]]]])
    attacked = fgsm(images, lambda x: linear_gradient(x, 0), 0.1)
    # the half of the label gets darker and the other brighter, and all stay in [0, 1]
    assert attacked.flatten().tolist() == pytest.approx([0.4, 0.0, 0.6, 1.0])


def test_pgd_of_a_linear_network_ends_where_fgsm_does_and_stays_within_eps() -> None:
    images, start = pictures(), 0.1 * (2 * pictures() - 1)
    seen = []

    def gradient(x: Tensor) -> Tensor:
        seen.append(x)
        return linear_gradient(x, 1)

    attacked = pgd(images, gradient, 0.1, steps=5, step_size=0.05, start=start)
    assert torch.allclose(attacked, fgsm(images, gradient, 0.1))
    for x in seen:
        assert (x - images).abs().max() <= 0.1 + 1e-6 and x.min() >= 0 and x.max() <= 1
    assert torch.equal(seen[0], (images + start).clamp(0, 1)) and not torch.equal(seen[0], images)


def test_images_are_those_of_the_adversarial_robustness_toolbox() -> None:
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    torch.manual_seed(3)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 4)).eval()
    images, labels = pictures(16), torch.arange(16) % 4
    classifier = PyTorchClassifier(
        layers, nn.CrossEntropyLoss(reduction="sum"), (1, 8, 8), 4, clip_values=(0.0, 1.0)
    )

    def gradient(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(layers(x), labels, reduction="sum")
        return torch.autograd.grad(loss, x)[0]

    theirs = FastGradientMethod(classifier, eps=0.1).generate(images.numpy(), labels.numpy())
    np.testing.assert_allclose(fgsm(images, gradient, 0.1).numpy(), theirs, atol=1e-6)
    their_pgd = ProjectedGradientDescentPyTorch(
        classifier, eps=0.1, eps_step=0.03, max_iter=7, num_random_init=0, verbose=False
    ).generate(images.numpy(), labels.numpy())
    ours = pgd(images, gradient, 0.1, 7, 0.03, torch.zeros_like(images))
    np.testing.assert_allclose(ours.numpy(), their_pgd, atol=1e-6)


# --- gradients through codings --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        ("direct", True),
        ("direct[spiking=false]", True),
        ("gac", True),
        ("lowpass", True),
        ("rate", False),
        ("latency", False),
        ("phase", False),
        ("burst", False),
        ("delta", False),
        ("signed_rate", False),
    ],
)
def test_codings_that_compare_and_round_have_no_gradient(encoder: str, expected: bool) -> None:
    assert has_gradient(network(encoder).encoder, pictures(), draws()) is expected


@pytest.mark.parametrize("encoder", ["latency", "delta[threshold=0.1,background=0.5]", "gac"])
def test_straight_through_each_step_of_the_code_has_derivative_1(encoder: str) -> None:
    """The derivative is by the pixels for pixel encoders, by the features for feature encoders."""
    coding = network(encoder).encoder
    emitted: list[Tensor] = []
    coding.code.register_forward_pre_hook(lambda module, args: emitted.append(args[0]))
    features: list[Tensor] = []
    coding.stem.register_forward_hook(lambda module, args, output: features.append(output))
    images = pictures().requires_grad_()
    with straight_through(coding):
        later: list[Tensor] = []
        with coding.code.register_forward_hook(lambda module, args, code: later.append(code)):
            coding(images, draws())
    (code,) = later
    assert torch.equal(code, emitted[0])
    coded = features[0] if encoder == "gac" else images
    weights = torch.rand(code.shape, generator=draws(2))
    (gradient,) = torch.autograd.grad((weights * code).sum(), coded)
    assert torch.allclose(gradient, weights.sum(0), atol=1e-6)


def test_without_bpda_the_gradient_of_a_latency_code_is_0_and_with_it_is_not() -> None:
    net, labels = network("latency"), torch.arange(6) % 4
    found = [
        ImageGradient(net, 1, "fp32", through)(pictures(), labels, draws())
        for through in (False, True)
    ]
    assert not found[0].any() and (found[1] != 0).float().mean() > 0.5


def test_the_gradient_of_a_random_coding_is_the_mean_over_its_draws() -> None:
    net, labels = network("rate"), torch.arange(6) % 4
    one_by_one, generator = [], draws(5)
    for _ in range(3):
        one_by_one.append(ImageGradient(net, 1, "fp32", True)(pictures(), labels, generator))
    together = ImageGradient(net, 3, "fp32", True)(pictures(), labels, draws(5))
    assert torch.allclose(together, torch.stack(one_by_one).mean(0), atol=1e-7)
    assert not torch.equal(one_by_one[0], one_by_one[1])


def test_an_image_has_the_same_gradient_in_a_batch_as_alone() -> None:
    net, labels = network("direct"), torch.arange(6) % 4
    gradient = ImageGradient(net, 1, "fp32", False)
    alone = gradient(pictures()[2:3], labels[2:3], draws())
    assert torch.allclose(gradient(pictures(), labels, draws())[2:3], alone, atol=1e-6)


# --- codes ----------------------------------------------------------------------------------------


def test_drop_deletes_none_all_or_a_share_of_the_values() -> None:
    code = 2.5 * torch.ones(4, 10, 1, 50, 50)
    assert torch.equal(drop(code, 0.0, draws()), code) and not drop(code, 1.0, draws()).any()
    third = drop(code, 0.3, draws())
    # 100,000 values: a standard deviation is 0.0015
    assert (third == 0).float().mean().item() == pytest.approx(0.3, abs=0.006)
    assert set(third.unique().tolist()) == {0.0, 2.5}
    assert (drop(code, 0.5, draws()) != 0).logical_and(third == 0).sum() == 0  # nested


def spike_train(*steps: float) -> Tensor:
    return torch.tensor(steps, dtype=torch.float32).reshape(-1, 1, 1)


def test_a_lone_spike_moves_to_the_next_step_or_the_one_before() -> None:
    code = spike_train(0, 0, 1, 0, 0).expand(5, 1, 1000)
    moved = jitter(code, 1.0, 1, draws())
    assert moved.sum((0, 1)).eq(1).all() and not moved[[0, 2, 4]].any()
    # 1000 coins: a standard deviation is 0.016
    assert moved[1].mean().item() == pytest.approx(0.5, abs=0.064)
    first, last = (
        jitter(spike_train(1, 0, 0), 1.0, 1, draws()),
        jitter(spike_train(0, 0, 1), 1.0, 1, draws()),
    )
    assert first.flatten().tolist() == last.flatten().tolist() == [0, 1, 0]


def test_a_spike_reaches_every_step_within_its_range_equally_often() -> None:
    moved = jitter(spike_train(0, 1, 0, 0, 0).expand(5, 1, 3000), 1.0, 2, draws())
    # 3 steps: 0, 2, 3; a standard deviation is 0.009
    assert moved.mean((1, 2)).tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3, 0], abs=0.035)


def test_values_whose_new_step_is_occupied_stay_and_none_is_lost() -> None:
    assert jitter(spike_train(1, -1), 1.0, 1, draws()).flatten().tolist() == [1, -1]
    assert jitter(spike_train(0.7), 1.0, 1, draws()).flatten().tolist() == pytest.approx([0.7])
    code = torch.rand(6, 8, 1, 20, 20, generator=draws(3))
    code = torch.where(code < 0.4, code - 0.2, 0)  # 40 % of the values, of either sign
    moved = jitter(code, 0.5, 2, draws(4))
    assert torch.equal(moved.sort(0).values, code.sort(0).values)  # each neuron keeps its values
    assert 0.1 < (moved != code).float().mean() < 0.6
    assert torch.equal(jitter(code, 0.0, 2, draws(4)), code)


def test_a_perturbed_code_is_what_the_backbone_sees_and_only_inside() -> None:
    net = network("latency")
    silent = torch.zeros(3, 6, 1, 8, 8)
    expected = net.backbone(net.encoder.stem(silent.flatten(0, 1)).unflatten(0, (3, 6)))
    before = net(pictures(), draws())
    with perturbed(net.encoder, lambda code: drop(code, 1.0, draws())):
        assert torch.equal(net(pictures(), draws()), expected)
    assert torch.equal(net(pictures(), draws()), before)


def test_a_coding_that_bypasses_its_base_class_is_refused() -> None:
    net = network("latency")
    with (
        pytest.raises(CodingbenchError, match="code of LatencyEncoder does not pass through"),
        perturbed(net.encoder, lambda code: code),
    ):
        pass
