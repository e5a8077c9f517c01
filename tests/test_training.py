"""The training loop and the evaluation, on real images with networks that take seconds."""

import math
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import codingbench
from codingbench.backbone import Network, build_network
from codingbench.cells.network import task_of
from codingbench.datasets import find, get_info, load
from codingbench.datasets.images import Split
from codingbench.recipes.recipe import Loss, Recipe, Rest, WeightAverage, load_recipe
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.runtime.devices import conditions
from codingbench.training.checkpoint import Checkpoints, present_conditions
from codingbench.training.evaluation import evaluate, stream
from codingbench.training.loop import Interrupted, train
from codingbench.training.meter import Pulse, TrainingError
from codingbench.training.schedule import rate_factor
from codingbench.training.splits import Data, hold_out

ROOT = Path(codingbench.__file__).parents[1]
OURS = [ROOT / name for name in ("codingbench", "encoders", "backbones")]


class Heard:
    """A listener that keeps everything it receives."""

    def __init__(self) -> None:
        self.pulses: list[Pulse] = []
        self.epochs: list[dict[str, Any]] = []

    def pulse(self, pulse: Pulse) -> None:
        self.pulses.append(pulse)

    def epoch_done(self, row: dict[str, Any]) -> None:
        self.epochs.append(row)


@pytest.fixture(scope="module")
def data() -> Data:
    """180 training and 60 validation images."""
    source = find("fashion_mini", None)
    assert source is not None
    train_split, val = hold_out(load(source, "train", 240), 0.25)
    return Data(train_split, val, load(source, "test", 100))


def recipe(**changes: Any) -> Recipe:
    return replace(load_recipe("quick"), **({"epochs": 2, "batch_size": 30} | changes))


def network(encoder: str = "direct", seed: int = 0) -> Network:
    plugins = ENCODERS.resolve(encoder), BACKBONES.resolve("csnn[width=4]")
    return build_network(*plugins, task_of(get_info("fashion_mini"), 2), seed)


def test_training_learns_and_reports_its_progress(data: Data) -> None:
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
    """Stands in for a network and keeps the batches it gets while training."""

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


@pytest.mark.parametrize("is_enriched", [False, True])
def test_every_coding_sees_the_same_batches_in_the_same_order(
    data: Data, is_enriched: bool
) -> None:
    augmenting = (enriched() if is_enriched else load_recipe("gac")).augment

    def batches(draws: int, seed: int) -> Tensor:
        net: Any = Recording(draws)
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
    few = data.train.subset(torch.arange(20))  # slow on CPUs
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


def held_out(labels: list[int], fraction: float) -> tuple[list[int], list[int]]:
    """The places of the training and the validation images."""
    places = torch.arange(len(labels)).reshape(-1, 1, 1, 1)
    kept, val = hold_out(Split(places, torch.tensor(labels)), fraction)
    assert val.labels.tolist() == [labels[place] for place in val.images.flatten().tolist()]
    return kept.images.flatten().tolist(), val.images.flatten().tolist()


def test_each_class_gives_its_share_of_the_validation_images() -> None:
    labels = [0, 1] * 40 + [1] * 360
    kept, val = held_out(labels, 0.1)
    assert val == [72, 74, 76, 78, *range(400, 440)]  # 4 of the 40, 40 of the 400
    assert kept == sorted(set(range(440)) - set(val))
    mnist = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    labels = [digit for digit, count in enumerate(mnist) for _ in range(count)]
    of_each = Counter(labels[place] for place in held_out(labels, 0.02)[1])
    # the fractions of 118.46, 134.84, 119.16, 122.62, 116.84, 108.42, 118.36, 125.3, 117.02, 118.98
    expected = [119, 135, 119, 123, 117, 108, 118, 125, 117, 119]
    assert [of_each[digit] for digit in range(10)] == expected


def test_shares_that_are_not_whole_go_to_the_largest_remainders() -> None:
    # 4 of 14: shares of 2.0, 0.86, 0.86, 0.29 by counts of 7, 3, 3, 1
    labels = [0] * 7 + [1] * 3 + [2] * 3 + [3]
    assert held_out(labels, 4 / 14)[1] == [5, 6, 9, 12]
    assert held_out(labels, 1e-9)[1] == [6]  # at least one
    assert held_out([0] * 9 + [1], 0.55)[1] == [3, 4, 5, 6, 7, 8]  # class 1 stays in training


def test_equal_classes_are_held_out_as_before() -> None:
    # literals of the function before shares were introduced
    assert held_out([0, 1, 2] * 4, 0.25)[1] == [9, 10, 11]
    assert held_out([0, 1, 2] * 4, 0.33)[1] == [8, 9, 10, 11]
    assert held_out([2, 0, 1, 1, 0, 2, 0, 1, 2], 0.5)[1] == [5, 6, 7, 8]
    assert held_out([0, 1, 2, 3, 4] * 2 + [0, 1, 2], 0.4)[1] == [8, 9, 10, 11, 12]
    assert held_out([0, 1], 0.9) == ([0], [1])


def test_one_image_cannot_be_trained_and_validated_on() -> None:
    split = Split(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), torch.tensor([0]))
    with pytest.raises(TrainingError, match="at least 2 training images are needed"):
        hold_out(split, 0.1)


def test_learning_rates_by_hand() -> None:
    gac = replace(load_recipe("gac"), epochs=4)
    per_epoch = [rate_factor(gac, epoch, 7, 10) for epoch in range(4)]
    assert per_epoch == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])
    quick = recipe(
        epochs=2
    )  # half an epoch of warm-up, then a cosine over the other one and a half
    per_step = [rate_factor(quick, epoch, batch, 4) for epoch in (0, 1) for batch in range(4)]
    assert per_step[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert per_step[5] == pytest.approx(0.5)
    assert per_step[2:] == sorted(per_step[2:], reverse=True)


# --- interrupted and resumed ----------------------------------------------------------------------


class Patience:
    """A ``should_stop`` that becomes True after a number of batches."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


class Noisy(nn.Module):
    """Draws from torch's global generator, as dropout does, and from the given one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.rand(images.shape, generator=generator)
        logits: Tensor = self.linear(self.dropout((images + noise).flatten(1)))
        return torch.stack((logits, logits))


def make(kind: str) -> Any:
    torch.manual_seed(1)
    return Noisy() if kind == "noisy" else network(kind)


def augmented(optimizer: Any = "sgd", **changes: Any) -> Recipe:
    """Random crops, flips, CutMix on about every second batch, momentum."""
    gac = load_recipe("gac")
    rest = Rest("sgd", lr=0.01, weight_decay=0.0, momentum=0.9) if optimizer == "muon" else None
    settings = replace(gac.optimizer, name=optimizer, lr=0.01, rest=rest)
    usual: dict[str, Any] = {"epochs": 2, "batch_size": 50, "optimizer": settings}
    return replace(gac, **(usual | changes))


def enriched(**changes: Any) -> Recipe:
    """Every setting of losses, augmentation and averages that ``gac`` does not have, and CutMix."""
    augmenting = replace(
        load_recipe("gac").augment, flip="alternate", crop_fill="reflect", cutout=8
    )
    usual: dict[str, Any] = {
        "augment": augmenting,
        "loss": Loss(name="tet", mse_weight=0.05, mse_target=1.0),
        "weight_average": WeightAverage(decay=0.8, every_steps=3),
    }
    return augmented(**(usual | changes))


CASES: dict[str, tuple[str, Recipe, dict[str, Any]]] = {
    "stochastic code, SGD": ("rate", augmented(), {}),
    "code with batch normalisation, AdamW": ("gac", augmented("adamw"), {}),
    "Muon": ("direct", augmented("muon"), {}),
    "dropout": ("noisy", augmented(), {}),
    "in pieces": ("rate", augmented(), {"micro_batch": 20}),
    "learning rate per step": ("direct", recipe(batch_size=50), {}),
    "tests after each epoch": ("rate", augmented(), {"tests_each_epoch": True}),
    "tet, mean, reflection, alternating flips, cutout": ("rate", enriched(), {"micro_batch": 20}),
}
BATCHES = 10  # of both epochs: 180 images in 4 batches, and one batch of validation images; in the
# last case one more per epoch, of test images


def in_sessions(
    case: str, data: Data, folder: Path, patience: list[int], precision: str = "fp32"
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the results of a training in several sessions, without times, and its conditions.

    Each session has a new network, and torch's generator starts in a different state.
    """
    kind, trained_by, settings = CASES[case]
    for session, batches in enumerate(patience):
        net = make(kind)
        torch.manual_seed(1 if session == 0 else 100 + session)
        with pytest.raises(Interrupted):
            train(
                net,
                data,
                trained_by,
                0,
                precision,
                Heard(),
                checkpoints=Checkpoints(folder, "cell"),
                should_stop=Patience(batches),
                **settings,
            )
    net = make(kind)
    torch.manual_seed(2 if patience else 1)
    kept = Checkpoints(folder, "cell")
    result = train(net, data, trained_by, 0, precision, Heard(), checkpoints=kept, **settings)
    assert [row["epoch"] for row in result.epoch_rows] == [1, 2]
    ending = {
        "last": net.state_dict(),
        "rows": timeless(result.epoch_rows),
        "selected_epoch": result.selected_epoch,
        "selected": result.selected_weights,
        "torch": torch.get_rng_state() if kind == "noisy" else None,
    }
    return ending, result.conditions


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    times = {"wall_s", "images_per_s"}
    return [{name: row[name] for name in row.keys() - times} for row in rows]


def assert_same_bits(one: dict[str, Any], other: dict[str, Any]) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


ANYWHERE = [*([batches] for batches in (1, 3, 4, 5, 6, 9, BATCHES)), [1, 1, 2, 1, 3]]
"""Batches of each session before the last: 4 is the last of an epoch, 5 and 10 validate."""


def check_interrupted(data: Data, folder: Path, case: str, patiences: Sequence[list[int]]) -> None:
    """Check that a training ends with the bits of an uninterrupted one wherever it is stopped."""
    whole, conditions = in_sessions(case, data, folder / "whole", [])
    assert len(conditions) == 1
    for patience in patiences:
        name = "-".join(map(str, patience))
        parts, conditions = in_sessions(case, data, folder / name, patience)
        assert_same_bits(parts, whole)
        assert len(conditions) == len(patience) + 1


@pytest.mark.parametrize("at, case", list(enumerate(CASES)))
def test_an_interrupted_training_ends_with_the_same_bits(
    data: Data, tmp_path: Path, at: int, case: str
) -> None:
    """Every case is stopped at two of the places, and every place is met by two cases."""
    check_interrupted(data, tmp_path, case, [ANYWHERE[at], ANYWHERE[at - 5]])


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES)
def test_a_training_interrupted_anywhere_ends_with_the_same_bits(
    data: Data, tmp_path: Path, case: str
) -> None:
    check_interrupted(data, tmp_path, case, ANYWHERE)


@pytest.mark.parametrize("kind", ["rate", "gac", "noisy"])
def test_tests_after_each_epoch_change_no_bit_of_anything_else(data: Data, kind: str) -> None:
    results = []
    for tests_each_epoch in (False, True):
        net = make(kind)
        torch.manual_seed(1)
        own: dict[str, Any] = {"tests_each_epoch": tests_each_epoch}
        results.append((net, train(net, data, augmented(), 0, "fp32", Heard(), **own)))
    (plain, without), (tested, with_tests) = results
    assert_same_bits(plain.state_dict(), tested.state_dict())
    assert_same_bits(without.selected_weights, with_tests.selected_weights)
    assert [row.pop("test_accuracy") for row in without.epoch_rows] == [None, None]
    found = [row.pop("test_accuracy") for row in with_tests.epoch_rows]
    assert timeless(without.epoch_rows) == timeless(with_tests.epoch_rows)
    # the last epoch's is that of the final measurement, which has the same draws
    final = evaluate(tested, data.test, stream(0, "test"))
    assert found[-1] == final.accuracy[-1] and None not in found


def test_a_checkpoint_of_a_version_without_tests_is_resumed(data: Data, tmp_path: Path) -> None:
    kept, heard = Checkpoints(tmp_path, "cell"), Heard()
    with pytest.raises(Interrupted):
        train(
            make("rate"),
            data,
            augmented(),
            0,
            "fp32",
            heard,
            checkpoints=kept,
            should_stop=Patience(6),
        )
    state = kept.load()
    assert state is not None
    del state["rows"][0]["test_accuracy"]  # as an earlier version saved it
    kept.save(state)
    own: dict[str, Any] = {"checkpoints": kept, "tests_each_epoch": True}
    rows = train(make("rate"), data, augmented(), 0, "fp32", heard, **own).epoch_rows
    first, second = (row["test_accuracy"] for row in rows)
    assert first is None and 0 <= second <= 1


def test_an_interrupted_training_in_bfloat16_ends_with_the_same_bits(
    data: Data, tmp_path: Path
) -> None:
    tiny = data.train.subset(torch.arange(110))
    data = Data(tiny, data.val.subset(torch.arange(20)), data.test)
    case = "stochastic code, SGD"
    whole, _ = in_sessions(case, data, tmp_path / "whole", [], "bf16")
    assert_same_bits(in_sessions(case, data, tmp_path / "parts", [2, 3], "bf16")[0], whole)


class Unplugged(Heard):
    """Kills the process when it reports the end of the second epoch."""

    def epoch_done(self, row: dict[str, Any]) -> None:
        super().epoch_done(row)
        if row["epoch"] == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("least_s", "lost"), [(0.0, 1), (1e6, 2)])
def test_a_killed_training_resumes_from_the_last_epoch_that_was_saved(
    data: Data, tmp_path: Path, least_s: float, lost: int
) -> None:
    whole = train(one := network("rate"), data, recipe(epochs=3), 0, "fp32", Heard())
    kept = Checkpoints(tmp_path, "cell", least_s)
    killed = Unplugged()
    with pytest.raises(KeyboardInterrupt):
        train(network("rate"), data, recipe(epochs=3), 0, "fp32", killed, checkpoints=kept)
    heard = Heard()
    again = train(
        other := network("rate"), data, recipe(epochs=3), 0, "fp32", heard, checkpoints=kept
    )
    assert [row["epoch"] for row in heard.epochs] == list(range(3 - lost, 4))
    assert timeless(again.epoch_rows) == timeless(whole.epoch_rows)
    assert_same_bits(one.state_dict(), other.state_dict())
    assert_same_bits(again.selected_weights, whole.selected_weights)


def test_a_finished_training_is_taken_from_its_last_checkpoint(data: Data, tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "cell", least_s=1e6)
    first = train(one := network(), data, recipe(), 0, "fp32", Heard(), checkpoints=kept)
    heard = Heard()
    again = train(other := network(seed=5), data, recipe(), 0, "fp32", heard, checkpoints=kept)
    assert not heard.pulses and not heard.epochs
    assert_same_bits(one.state_dict(), other.state_dict())
    assert again.epoch_rows == first.epoch_rows and again.images_per_s == first.images_per_s
    assert again.selected_epoch == first.selected_epoch
    assert_same_bits(again.selected_weights, first.selected_weights)


def test_the_times_of_all_sessions_add_up(data: Data, tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "cell")
    with pytest.raises(Interrupted):
        train(
            network(),
            data,
            recipe(),
            0,
            "fp32",
            Heard(),
            checkpoints=kept,
            should_stop=Patience(3),
        )
    state = kept.load()
    assert state is not None
    state["wall_s"] += 1000.0
    state["meter"]["seconds"] += 1000.0
    kept.save(state)
    result = train(network(), data, recipe(), 0, "fp32", Heard(), checkpoints=kept)
    assert result.wall_s > 1000 and result.epoch_rows[0]["wall_s"] > 1000
    assert result.epoch_rows[0]["images_per_s"] < 180 / 1000 < result.epoch_rows[1]["images_per_s"]
    assert result.images_per_s < 360 / 1000


def test_other_versions_and_threads_are_accepted_and_recorded(data: Data, tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "cell")
    train(network(), data, recipe(), 0, "fp32", Heard(), checkpoints=kept)
    state = kept.load()
    assert state is not None
    before = state["conditions"][0] | {"torch": "1.0", "codingbench": "0.1", "threads": 64}
    kept.save(state | {"conditions": [before]})
    result = train(network(), data, recipe(), 0, "fp32", Heard(), checkpoints=kept)
    assert result.conditions == [before, present_conditions(torch.device("cpu"))]


def test_a_checkpoint_of_another_kind_of_device_is_refused(data: Data, tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "cell")
    train(network(), data, recipe(), 0, "fp32", Heard(), checkpoints=kept)
    state = kept.load()
    assert state is not None
    state["conditions"][-1]["device"] = "cuda"
    kept.save(state)
    with pytest.raises(TrainingError, match="by a training on cuda, expected cpu: resume there"):
        train(network(), data, recipe(), 0, "fp32", Heard(), checkpoints=kept)


def test_a_training_without_checkpoints_can_be_stopped_too(data: Data) -> None:
    heard = Heard()
    with pytest.raises(Interrupted):
        train(network(), data, recipe(), 0, "fp32", heard, should_stop=Patience(1))
    assert not heard.epochs


# --- gradients in pieces --------------------------------------------------------------------------


class Plain(nn.Module):
    """Two convolutions and a linear layer: no batch normalisation, nothing random."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.Linear(4 * 24 * 24, 10)

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        logits: Tensor = self.head(self.layers(images))
        return torch.stack((logits, 2 * logits))


def mixed(**changes: Any) -> Recipe:
    """CutMix on every batch, and label smoothing."""
    gac = load_recipe("gac")
    certain = replace(gac.augment, cutmix_probability=1.0)
    return augmented(augment=certain, label_smoothing=0.1, **changes)


@pytest.mark.parametrize("micro_batch", [1, 7, 90, 179])
def test_gradients_of_pieces_add_up_to_those_of_the_batch(data: Data, micro_batch: int) -> None:
    def gradients(size: int | None) -> dict[str, Tensor]:
        net: Any = Plain()
        one_step = mixed(epochs=1, batch_size=180)
        train(net, data, one_step, 0, "fp32", Heard(), micro_batch=size)
        return {name: weights.grad for name, weights in net.named_parameters()}

    whole = gradients(None)
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-3
    torch.testing.assert_close(gradients(micro_batch), whole, rtol=0, atol=1e-6)


def test_a_training_in_pieces_makes_the_same_steps(data: Data) -> None:
    def trained(size: int | None) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        net: Any = Plain()
        result = train(net, data, mixed(), 0, "fp32", Heard(), micro_batch=size)
        return net.state_dict(), timeless(result.epoch_rows)

    (whole, rows), (parts, rows_in_parts) = trained(None), trained(16)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    assert [row["train_loss"] for row in rows_in_parts] == pytest.approx(
        [row["train_loss"] for row in rows], rel=1e-5
    )


@pytest.mark.parametrize("micro_batch", [50, 51, 10_000])
def test_a_piece_no_smaller_than_the_batch_changes_no_bit(data: Data, micro_batch: int) -> None:
    def trained(size: int | None) -> dict[str, Tensor]:
        net = network("rate")
        train(net, data, augmented(epochs=1), 0, "fp32", Heard(), micro_batch=size)
        return net.state_dict()

    assert_same_bits(trained(micro_batch), trained(None))


def test_pieces_need_less_memory_for_backward(data: Data) -> None:
    def most_saved(size: int | None) -> int:
        """Return the most bytes that autograd holds at a time, without weights."""
        net: Any = Plain()
        own = {weights.data_ptr() for weights in net.parameters()}
        held = most = 0

        class Saved:
            def __init__(self, tensor: Tensor) -> None:
                nonlocal held, most
                self.tensor = tensor
                self.bytes = 0 if tensor.data_ptr() in own else tensor.nbytes
                held += self.bytes
                most = max(most, held)

            def __del__(self) -> None:
                nonlocal held
                held -= self.bytes

        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            one_step = mixed(epochs=1, batch_size=180)
            train(net, data, one_step, 0, "fp32", Heard(), micro_batch=size)
        return most

    assert most_saved(18) == pytest.approx(most_saved(None) / 10, rel=0.01)


# --- no waiting for the device --------------------------------------------------------------------


class Reads(TorchDispatchMode):
    """Counts the reads of tensor values, by the function of this project that reads."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            names = [frame.name for frame in traceback.extract_stack() if is_ours(frame.filename)]
            self.by[names[-1]] += 1
        return func(*args, **(kwargs or {}))


def is_ours(filename: str) -> bool:
    """Return True for a file of the engine, a coding or a backbone."""
    return any(Path(filename).is_relative_to(folder) for folder in OURS)


@pytest.mark.parametrize("optimizer", ["sgd", "muon", "sgd, enriched"])
def test_a_step_reads_no_tensor_but_the_coins_of_cutmix(
    data: Data, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """The coins are drawn on the CPU for every device; any other read would wait for the device."""
    monkeypatch.setattr("codingbench.training.meter._REPORT_EVERY_S", math.inf)
    epochs, batches, net = 2, 9, network("rate")
    by = mixed(optimizer=optimizer.split(",")[0], epochs=epochs, batch_size=20)
    if optimizer == "sgd, enriched":
        certain = replace(enriched().augment, cutmix_probability=1.0)
        by = enriched(augment=certain, epochs=epochs, batch_size=20)
    with Reads() as reads:
        train(net, data, by, 0, "fp32", Heard())
    steps = epochs * batches
    assert reads.by == {
        "_mix": steps,  # decides about mixing
        "_beta": steps,  # decides how much
        "cutmix": 2 * steps,  # row and column
        "report": 2 * epochs,  # at the end of an epoch
        "_summary": epochs,  # the check of a validation that all codes are finite
    }


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")  # torch's
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("encoder", ["rate", "gac", "latency", "direct"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon", "sgd, enriched"])
def test_a_training_step_never_waits_for_the_device(
    data: Data, monkeypatch: pytest.MonkeyPatch, encoder: str, optimizer: str, graphs: bool
) -> None:
    monkeypatch.setattr("codingbench.training.meter._REPORT_EVERY_S", math.inf)
    # beartype, which checks signatures in tests, draws from Python's random module itself
    monkeypatch.setattr("codingbench.training.host_state._python_draws", lambda: None)
    cuda = torch.device("cuda")
    splits = (data.train, data.val, data.test)
    there = Data(*(split.to(cuda) for split in splits))
    asked = 0

    def watch() -> bool:
        """Make a wait an error from the end of the first batch to the end of the last."""
        nonlocal asked
        asked += 1
        torch.cuda.set_sync_debug_mode("error" if asked < 9 else "default")
        return False

    name, _, is_enriched = optimizer.partition(", ")
    make_recipe = enriched if is_enriched else mixed
    one_epoch = make_recipe(optimizer=name, epochs=1, batch_size=20)
    try:
        net = network(encoder).to(cuda)
        train(net, there, one_epoch, 0, "fp32", Heard(), should_stop=watch, graphs=graphs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert asked == 10  # nine batches, and one of validation images


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_interrupted_training_on_a_gpu_ends_with_the_same_bits(
    data: Data, tmp_path: Path
) -> None:
    cuda = torch.device("cuda")
    splits = (data.train, data.val, data.test)
    there = Data(*(split.to(cuda) for split in splits))

    def trained(kept: Checkpoints, patience: int) -> dict[str, Tensor]:
        net = network("rate").to(cuda)
        train(
            net,
            there,
            augmented(),
            0,
            "fp32",
            Heard(),
            checkpoints=kept,
            should_stop=Patience(patience),
        )
        return net.state_dict()

    with conditions(1, is_deterministic=True):
        whole = trained(Checkpoints(tmp_path, "whole"), 1000)
        for batches in (3, 5):
            with pytest.raises(Interrupted):
                trained(Checkpoints(tmp_path, "parts"), batches)
        assert_same_bits(trained(Checkpoints(tmp_path, "parts"), 1000), whole)
