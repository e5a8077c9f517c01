"""The exponential mean of the weights, compared with a plain loop and with torch's class."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from codingbench.datasets.images import Split
from codingbench.recipes.recipe import Recipe, WeightAverage, load_recipe
from codingbench.training import loop
from codingbench.training.checkpoint import Checkpoints
from codingbench.training.evaluation import evaluate, stream
from codingbench.training.loop import Interrupted, train
from codingbench.training.splits import Data
from codingbench.training.weight_mean import WeightMean

EVERY_STEP = WeightAverage(decay=0.75, every_steps=1)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def walk(network: nn.Module, steps: int) -> Iterator[dict[str, Tensor]]:
    """Change the weights, the running statistics and the counter; yield each copied state."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    draws = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        (network(torch.randn(8, 4, generator=draws)) - 1).square().mean().backward()
        optimizer.step()
        yield copy.deepcopy(network.state_dict())


def test_a_mean_by_hand() -> None:
    network = nn.Linear(1, 1, bias=False)
    mean = WeightMean(network, EVERY_STEP)
    seen = []
    for weight in (8.0, 4.0, 0.0):
        nn.init.constant_(network.weight, weight)
        mean.update()
        seen.append(mean.state()["weight"].item())
    assert seen == [8.0, 0.75 * 8 + 0.25 * 4, 0.75 * 7 + 0.25 * 0]


@pytest.mark.parametrize("every_steps", [1, 3])
def test_the_mean_is_that_of_a_plain_loop_and_of_torch(every_steps: int) -> None:
    network, decay = small(), 0.9
    mean = WeightMean(network, WeightAverage(decay, every_steps))
    torchs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    expected: dict[str, Tensor] = {}
    for step, weights in enumerate(walk(network, 10), 1):
        if not mean.is_due(step):
            continue
        mean.update()
        torchs.update_parameters(network)
        floats = {name: value for name, value in weights.items() if value.is_floating_point()}
        for name, value in floats.items():
            before = expected.get(name, value)
            expected[name] = decay * before + (1 - decay) * value
    assert "1.running_var" in expected and "1.num_batches_tracked" not in expected
    torch.testing.assert_close(mean.state(), expected)
    by_torch = torchs.module.state_dict()
    for name, value in mean.state().items():
        assert torch.equal(value, by_torch[name])


def test_the_network_has_the_mean_inside_the_context_and_then_its_own_bits_again() -> None:
    network = small()
    mean = WeightMean(network, EVERY_STEP)
    for _ in walk(network, 5):
        mean.update()
    own, places = copy.deepcopy(network.state_dict()), pointers(network)
    for fault in (False, True):
        with pytest.raises(RuntimeError) if fault else no_error(), mean.applied():
            inside = network.state_dict()
            for name, value in mean.state().items():
                assert torch.equal(inside[name], value)
            assert not torch.equal(inside["0.weight"], own["0.weight"])
            assert not torch.equal(inside["1.running_mean"], own["1.running_mean"])
            assert inside["1.num_batches_tracked"] == 5
            torch.testing.assert_close(mean.own_state(), own, rtol=0, atol=0)
            if fault:
                raise RuntimeError
        torch.testing.assert_close(network.state_dict(), own, rtol=0, atol=0)
    assert pointers(network) == places  # CUDA graphs read these addresses
    mean.apply()
    assert torch.equal(network.state_dict()["0.weight"], mean.state()["0.weight"])


def test_updates_are_due_after_every_nth_step_and_without_the_section_never() -> None:
    mean = WeightMean(small(), WeightAverage(0.9, 3))
    assert [step for step in range(1, 10) if mean.is_due(step)] == [3, 6, 9]
    assert not any(WeightMean(small(), None).is_due(step) for step in range(1, 10))


@pytest.mark.parametrize("settings", [None, WeightAverage(0.9, 100)])
def test_before_the_first_update_the_network_is_evaluated_as_it_is(
    settings: WeightAverage | None,
) -> None:
    network = small()
    mean = WeightMean(network, settings)
    for own in walk(network, 3):
        with mean.applied():
            torch.testing.assert_close(mean.own_state(), own, rtol=0, atol=0)
            torch.testing.assert_close(network.state_dict(), own, rtol=0, atol=0)
    mean.apply()
    torch.testing.assert_close(network.state_dict(), own, rtol=0, atol=0)
    assert mean.state() == {}


# --- trainings ------------------------------------------------------------------------------------


class Plain(nn.Module):
    """A network without a code."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        layers = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)
        self.layers = nn.Sequential(nn.Flatten(), *layers)

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        logits: Tensor = self.layers(images)
        return torch.stack((logits, 2 * logits))


class Silent:
    def pulse(self, pulse: Any) -> None: ...
    def epoch_done(self, row: dict[str, Any]) -> None: ...


@pytest.fixture
def data() -> Data:
    """Four classes of noisy images, of which each brightens one quarter."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 4
    images = torch.randint(200, (120, 1, 8, 8), generator=draws)
    images[torch.arange(120), 0, 2 * labels] += 50
    split = Split(images.to(torch.uint8), labels)
    parts = [split.subset(torch.arange(*ends)) for ends in ((0, 80), (80, 100), (100, 120))]
    return Data(*parts)


def recipe(**changes: Any) -> Recipe:
    usual: dict[str, Any] = {"epochs": 3, "batch_size": 20, "weight_average": EVERY_STEP}
    return replace(load_recipe("quick"), **(usual | changes))


def trained(
    data: Data, by: Recipe, folder: Path | None = None, stops: tuple[int, ...] = ()
) -> tuple[dict[str, Tensor], loop.Training]:
    """Train in several sessions, each of which stops after a number of batches."""
    for batches in (*stops, 10**6):
        net: Any = Plain()
        left = iter(range(batches - 1))
        try:
            result = train(
                net,
                data,
                by,
                0,
                "fp32",
                Silent(),
                checkpoints=None if folder is None else Checkpoints(folder, "cell"),
                should_stop=lambda: next(left, None) is None,  # noqa: B023
            )
        except Interrupted:
            continue
    return net.state_dict(), result


def test_the_trained_and_the_selected_weights_are_means_and_are_what_was_validated(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_steps: list[dict[str, Tensor]] = []

    class Watched(WeightMean):
        def update(self) -> None:
            super().update()
            after_steps.append(copy.deepcopy(self._network.state_dict()))

    monkeypatch.setattr(loop, "WeightMean", Watched)
    weights, result = trained(data, recipe())
    expected: dict[str, Tensor] = {}
    for own in after_steps:
        expected = {
            n: 0.75 * expected.get(n, x) + 0.25 * x for n, x in own.items() if x.is_floating_point()
        }
    assert len(after_steps) == 12
    torch.testing.assert_close({name: weights[name] for name in expected}, expected)
    network: Any = Plain()
    for state, epoch in ((weights, 3), (result.selected_weights, result.selected_epoch)):
        network.load_state_dict(state)
        found = evaluate(network, data.val, stream(0, "validation"))
        row = result.epoch_rows[epoch - 1]
        assert (found.loss, found.accuracy[-1]) == (row["val_loss"], row["val_accuracy"])


def test_the_weights_go_on_training_as_if_there_were_no_mean(data: Data) -> None:
    _, plain = trained(data, recipe(weight_average=None))
    _, averaged = trained(data, recipe())
    for name in ("train_loss", "train_accuracy", "learning_rate"):
        assert [row[name] for row in plain.epoch_rows] == [row[name] for row in averaged.epoch_rows]
    losses = [[row["val_loss"] for row in result.epoch_rows] for result in (plain, averaged)]
    assert losses[0] != losses[1]


def test_a_mean_that_only_copies_changes_no_bit(data: Data) -> None:
    plain, one = trained(data, recipe(weight_average=None))
    copied, other = trained(data, recipe(weight_average=WeightAverage(0.0, 1)))
    torch.testing.assert_close(copied, plain, rtol=0, atol=0)
    assert [row["val_loss"] for row in one.epoch_rows] == [
        row["val_loss"] for row in other.epoch_rows
    ]


@pytest.mark.parametrize("every_steps", [1, 3])
@pytest.mark.parametrize("stops", [(1,), (4,), (5,), (2, 3, 5), (15,)])
def test_an_interrupted_training_has_the_same_means_and_weights(
    data: Data, tmp_path: Path, stops: tuple[int, ...], every_steps: int
) -> None:
    """An epoch has four batches and one of validation images, after which a stop saves too."""
    by = recipe(weight_average=WeightAverage(0.9, every_steps))
    whole, one = trained(data, by, tmp_path / "whole")
    parts, other = trained(data, by, tmp_path / "parts", stops)
    torch.testing.assert_close(parts, whole, rtol=0, atol=0)
    torch.testing.assert_close(other.selected_weights, one.selected_weights, rtol=0, atol=0)
    states = [Checkpoints(tmp_path / name, "cell").load() for name in ("whole", "parts")]
    assert states[0] is not None and states[1] is not None
    for name in ("network", "mean"):
        torch.testing.assert_close(states[1][name], states[0][name], rtol=0, atol=0)
    kept = states[0]
    assert not torch.equal(kept["network"]["layers.1.weight"], kept["mean"]["layers.1.weight"])
    assert torch.equal(whole["layers.1.weight"], kept["mean"]["layers.1.weight"])
    again, _ = trained(data, by, tmp_path / "whole")  # from the last checkpoint, with no step
    torch.testing.assert_close(again, whole, rtol=0, atol=0)


def pointers(network: nn.Module) -> list[int]:
    return [value.data_ptr() for value in network.state_dict().values()]


@contextmanager
def no_error() -> Iterator[None]:
    yield
