"""The training loop and the evaluation, on real images with networks that take seconds."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codingbench.backbone import Network, build_network
from codingbench.datasets import find, get_info, load
from codingbench.image_files import Split
from codingbench.recipes import Recipe, load_recipe
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.runner import task_of
from codingbench.training import (
    Data,
    Pulse,
    TrainingError,
    _factor,
    evaluate,
    hold_out,
    stream,
    train,
)


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.pulses: list[Pulse] = []
        self.epochs: list[dict[str, Any]] = []

    def pulse(self, pulse: Pulse) -> None:
        self.pulses.append(pulse)

    def epoch_done(self, row: dict[str, Any]) -> None:
        self.epochs.append(row)


@pytest.fixture(scope="module")
def data() -> Data:
    source = find("fashion_mini", None)
    assert source is not None
    train_split, val = hold_out(load(source, "train", 240), 0.25)
    return Data(train_split, val, load(source, "test", 100))


def recipe(**changes: Any) -> Recipe:
    return replace(load_recipe("quick"), **({"epochs": 2, "batch_size": 30} | changes))


def network(encoder: str = "direct", seed: int = 0) -> Network:
    plugins = ENCODERS.resolve(encoder), BACKBONES.resolve("csnn[width=4]")
    return build_network(*plugins, task_of(get_info("fashion_mini"), 2), seed)


def test_training_learns_and_says_how_it_goes(data: Data) -> None:
    net, heard = network(), Heard()
    result = train(net, data, recipe(epochs=10), 0, "fp32", heard)
    rows = result.epoch_rows
    assert [row["epoch"] for row in rows] == list(range(1, 11)) and rows == heard.epochs
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    test = evaluate(net, data.test, stream(0, "test"))
    assert test.accuracy[-1] > 0.3  # chance is 0.1, three sigma above it 0.19
    last = heard.pulses[-1]
    assert (last.epoch, last.epochs, last.done) == (10, 10, 1.0)
    assert last.loss == rows[-1]["train_loss"] and last.images_per_s > 0


def test_the_selected_epoch_is_the_earliest_best_on_validation_images(data: Data) -> None:
    result = train(net := network(), data, recipe(epochs=4), 0, "fp32", Heard())
    accuracies = [row["val_accuracy"] for row in result.epoch_rows]
    assert result.selected_epoch == 1 + accuracies.index(max(accuracies))
    net.load_state_dict(result.selected_weights)
    again = evaluate(net, data.val, stream(0, "validation"))
    assert again.accuracy[-1] == max(accuracies)


@pytest.mark.parametrize("encoder", ["rate", "gac"])
def test_the_same_seed_trains_the_same_network_and_another_does_not(
    data: Data, encoder: str
) -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        train(net := network(encoder, seed), data, recipe(), seed, "fp32", Heard())
        return net.state_dict()

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(
        first["backbone.head.linear.weight"], other["backbone.head.linear.weight"]
    )


class Recording(nn.Module):
    """Stands in for a network and keeps the batches it is shown while training."""

    def __init__(self, draws_of_its_own: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10))
        self.seen: list[Tensor] = []
        self.draws = draws_of_its_own

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        torch.rand(self.draws, generator=generator)
        if self.training:
            self.seen.append(images.clone())
        return self.weight.expand(2, len(images), 10)


def test_every_coding_sees_the_same_batches_in_the_same_order(data: Data) -> None:
    def batches(draws: int, seed: int) -> Tensor:
        net: Any = Recording(draws)
        augmenting = load_recipe("gac").augment
        train(net, data, recipe(augment=augmenting), seed, "fp32", Heard())
        return torch.cat(net.seen)

    plain = batches(draws=0, seed=0)
    assert torch.equal(plain, batches(draws=1000, seed=0))
    assert not torch.equal(plain, batches(draws=0, seed=1))
    epochs = plain.reshape(2, -1, 1, 28, 28)
    assert not torch.equal(epochs[0], epochs[1])


def test_a_loss_that_is_not_finite_ends_the_training(data: Data) -> None:
    net: Any = network()
    nn.init.constant_(net.backbone.head.linear.bias, math.inf)
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 1, within the first \d+ of 180"):
        train(net, data, recipe(), 0, "fp32", Heard())


def test_bfloat16_trains_too(data: Data) -> None:
    few = Split(data.train.images[:20], data.train.labels[:20])  # slow on CPUs
    train(net := network(), Data(few, few, few), recipe(epochs=1), 0, "bf16", heard := Heard())
    assert math.isfinite(heard.epochs[-1]["train_loss"])
    assert next(net.parameters()).dtype == torch.float32


class Fixed(nn.Module):
    """Logits given beforehand, [T, image, class], batch by batch."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.at = 0

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        start, self.at = self.at, self.at + len(images)
        return self.logits[:, start : self.at]


def test_the_prediction_after_t_steps_is_the_mean_of_the_first_t_logits() -> None:
    # image 0: class 0 at once; image 1: wrong at first, right from the mean of two on
    logits = torch.tensor(
        [[[2.0, 0, 0], [1, 0, 0]], [[0, 1, 0], [0, 3, 0]], [[0, 0, 0], [0, 0, 0]]]
    )
    split = Split(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
    fixed: Any = Fixed(logits)
    result = evaluate(fixed, split, stream(0, "x"))
    assert result.accuracy == [0.5, 1.0, 1.0]
    assert result.predictions.tolist() == [0, 1]
    torch.testing.assert_close(result.margins, torch.tensor([1 / 3, 2 / 3]))


def test_evaluation_in_batches_is_evaluation_at_once() -> None:
    logits = torch.randn(2, 450, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(450) % 10
    split = Split(torch.zeros(450, 1, 4, 4, dtype=torch.uint8), labels)
    done: list[int] = []
    fixed: Any = Fixed(logits)
    result = evaluate(fixed, split, stream(0, "x"), each_batch=done.append)
    expected = logits.mean(0)
    assert result.accuracy[-1] == (expected.argmax(1) == labels).double().mean()
    assert result.loss == pytest.approx(nn.functional.cross_entropy(expected, labels).item())
    assert done == [200, 400, 450]


def test_validation_images_are_the_last_of_each_class_and_never_trained_on() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1, 2])
    images = torch.arange(9, dtype=torch.uint8).reshape(9, 1, 1, 1)
    kept, val = hold_out(Split(images, labels), 1 / 3)
    assert val.images.flatten().tolist() == [6, 7, 8] and val.labels.tolist() == [0, 1, 2]
    assert kept.images.flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_one_image_cannot_be_trained_and_validated_on() -> None:
    split = Split(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), torch.tensor([0]))
    with pytest.raises(TrainingError, match="at least 2 training images are needed"):
        hold_out(split, 0.1)


def test_learning_rates_by_hand() -> None:
    gac = replace(load_recipe("gac"), epochs=4)
    per_epoch = [_factor(gac, epoch, 7, 10) for epoch in range(4)]
    assert per_epoch == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])
    quick = recipe(
        epochs=2
    )  # half an epoch of warm-up, then a cosine over the other one and a half
    per_step = [_factor(quick, epoch, batch, 4) for epoch in (0, 1) for batch in range(4)]
    assert per_step[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert per_step[5] == pytest.approx(0.5)
    assert per_step[2:] == sorted(per_step[2:], reverse=True)
