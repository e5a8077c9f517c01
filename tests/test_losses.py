"""The losses of a training, compared with literal values and with the published formula."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from codingbench.recipes.recipe import Loss, Recipe, load_recipe
from codingbench.training.augment import Batch
from codingbench.training.losses import training_loss

TET = Loss(name="tet", mse_weight=0.05, mse_target=1.0)


def recipe(loss: Loss | None, label_smoothing: float = 0.0) -> Recipe:
    return replace(load_recipe("quick"), loss=loss, label_smoothing=label_smoothing)


def images(count: int) -> Tensor:
    return torch.zeros(count, 1, 2, 2)


def some_logits(num_steps: int = 3, batch: int = 5, classes: int = 4) -> Tensor:
    draws = Generator().manual_seed(1)
    return torch.randn(num_steps, batch, classes, generator=draws, dtype=torch.float64)


def published(
    outputs: Tensor, criterion: nn.Module, target: Tensor, means: float, lamb: float
) -> Tensor:
    """Compute the paper's L_total step by step, as its authors do, from [batch, time, class]."""
    num_steps = outputs.size(1)
    by_step = [criterion(outputs[:, t], target) for t in range(num_steps)]
    towards = nn.MSELoss()(outputs, torch.zeros_like(outputs).fill_(means))
    total: Tensor = (1 - lamb) * sum(by_step) / num_steps + lamb * towards
    return total


def test_tet_by_hand() -> None:
    """Step 1 gives the label 3/4, step 2 gives it 1/4."""
    logits = torch.tensor([[[math.log(3.0), 0.0]], [[0.0, math.log(3.0)]]])
    batch = Batch(images(1), torch.tensor([0]))
    by_step = (math.log(4 / 3) + math.log(4)) / 2
    without = training_loss(logits, batch, recipe(Loss(name="tet")))
    assert without.item() == pytest.approx(by_step)
    towards = ((math.log(3) - 2) ** 2 + 2**2) / 2  # the same at both steps
    with_mse = training_loss(
        logits, batch, recipe(Loss(name="tet", mse_weight=0.25, mse_target=2.0))
    )
    assert with_mse.item() == pytest.approx(0.75 * by_step + 0.25 * towards)
    # the mean logits of both classes are equal
    assert training_loss(logits, batch, recipe(None)).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("weight", "target"), [(0.0, 1.0), (0.05, 1.0), (1e-3, 0.5)])
def test_tet_is_the_published_loss(weight: float, target: float, smoothing: float) -> None:
    logits, labels = some_logits(), torch.tensor([0, 3, 2, 2, 1])
    criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
    expected = published(logits.transpose(0, 1), criterion, labels, target, weight)
    by = recipe(Loss(name="tet", mse_weight=weight, mse_target=target), smoothing)
    torch.testing.assert_close(training_loss(logits, Batch(images(5), labels), by), expected)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_tet_of_mixed_images_is_the_published_loss_of_mixed_smoothed_labels(
    as_tensor: bool,
) -> None:
    logits = some_logits()
    own, other = torch.tensor([0, 3, 2, 2, 1]), torch.tensor([1, 0, 3, 2, 2])
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64) if as_tensor else None
    batch = Batch(images(5), own, other, 1.0 if as_tensor else 0.3, weights)
    soft = 0.3 * F.one_hot(own, 4) + 0.7 * F.one_hot(other, 4)
    soft = 0.9 * soft.double() + 0.1 / 4
    expected = published(logits.transpose(0, 1), nn.CrossEntropyLoss(), soft, 1.0, 0.05)
    torch.testing.assert_close(training_loss(logits, batch, recipe(TET, 0.1)), expected)


def test_mean_is_the_loss_of_the_mean_logits_bit_by_bit() -> None:
    logits, labels = some_logits().float(), torch.tensor([0, 3, 2, 2, 1])
    expected = F.cross_entropy(logits.mean(0), labels, label_smoothing=0.1)
    for settings in (None, Loss(name="mean")):
        loss = training_loss(logits, Batch(images(5), labels), recipe(settings, 0.1))
        assert torch.equal(loss, expected)


def test_with_one_step_tet_without_its_second_term_is_mean() -> None:
    logits, batch = some_logits(1), Batch(images(5), torch.tensor([0, 3, 2, 2, 1]))
    one, other = (training_loss(logits, batch, recipe(Loss(name=name))) for name in ("mean", "tet"))
    assert torch.equal(one, other)


def test_every_step_has_a_gradient_of_its_own_under_tet() -> None:
    def gradients(settings: Loss) -> Tensor:
        logits = some_logits().requires_grad_()
        batch = Batch(images(5), torch.tensor([0, 3, 2, 2, 1]))
        training_loss(logits, batch, recipe(settings)).backward()
        assert logits.grad is not None
        return logits.grad

    first, *others = gradients(Loss(name="mean"))
    assert all(torch.equal(first, other) for other in others)
    first, *others = gradients(TET)
    assert all(float(step.abs().min()) > 0 for step in (first, *others))
    assert not any(torch.allclose(first, other, rtol=0.1) for other in others)


@pytest.mark.parametrize("settings", [None, TET])
def test_pieces_weighted_by_their_images_add_up_and_an_empty_one_adds_nothing(
    settings: Loss | None,
) -> None:
    logits = some_logits(batch=7)
    labels = torch.randint(4, (7,), generator=Generator().manual_seed(2))
    batch = Batch(images(7), labels, labels.flip(0), 0.3)
    by = recipe(settings, 0.1)
    weighted = [
        len(piece.labels) / 7 * training_loss(part, piece, by)
        for piece, part in zip(batch.pieces(3), logits.split(3, dim=1), strict=True)
    ]
    torch.testing.assert_close(sum(weighted), training_loss(logits, batch, by))
    empty = some_logits(batch=0).requires_grad_()
    nothing = training_loss(empty, batch.part(0, 10), by)
    nothing.backward()
    assert nothing.item() == 0.0
