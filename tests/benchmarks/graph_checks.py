"""Comparison of trainings with and without CUDA graphs: equality of all bits, and speed.

``on_gpu.py`` and the tests marked ``cuda`` run these checks. There are no graphs on a CPU, where
both trainings are eager.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Generator, Tensor, nn

from codingbench.backbone import Network, build_network, move_network
from codingbench.datasets.images import Split
from codingbench.encoder import Task
from codingbench.neurons import use_backend
from codingbench.recipes.recipe import (
    Loss,
    Optimizer,
    Recipe,
    Rest,
    WeightAverage,
    load_recipe,
)
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.runtime.devices import conditions
from codingbench.training import cuda_graphs, evaluation, loop
from codingbench.training.checkpoint import Checkpoints
from codingbench.training.graphs import Replaying
from codingbench.training.loop import Interrupted, train
from codingbench.training.splits import Data

CLASSES = 10
VALIDATION_BATCH = 8
MUON = "sprint with Muon"


@dataclass(frozen=True)
class Case:
    """A training that is run with and without graphs."""

    encoder: str
    backbone: str = "csnn"
    recipe: str = "quick"
    precision: str = "bf16"
    num_steps: int = 4
    batch: int = 16
    epochs: int = 2
    neurons: str = "eager"
    micro_batch: int | None = None
    mean_every: int | None = None
    """Steps between updates of the weights' mean; such a case also has the loss ``tet``,
    reflected borders, alternating flips and cutout."""

    def __str__(self) -> str:
        pieces = f", pieces of {self.micro_batch}" if self.micro_batch else ""
        pieces += f", tet, mean of every step {self.mean_every}" if self.mean_every else ""
        return (
            f"{self.backbone} {self.encoder} {self.recipe} T={self.num_steps} b{self.batch} "
            f"{self.precision} {self.neurons}{pieces}"
        )


CASES = [
    Case(encoder, backbone, recipe)
    for backbone in ("csnn", "ms_resnet18")
    for recipe in ("quick", "gac", "modern")
    for encoder in ("direct", "gac", "rate", "latency")
]
CASES[12:12] = [
    Case("rate", precision="fp32"),
    Case("rate", recipe="gac", micro_batch=6),
    Case("gac", recipe="gac", precision="fp32"),
    Case("direct", recipe="sprint"),
    Case("direct", recipe=MUON),
    Case("rate", recipe="gac", mean_every=1),
    Case("gac", recipe="modern", mean_every=2, micro_batch=6),
]


class Silent:
    """A listener that keeps the rows of epochs."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []

    def pulse(self, pulse: Any) -> None: ...

    def epoch_done(self, row: dict[str, Any]) -> None:
        self.epochs.append(row)


@dataclass
class Ending:
    """The results of a training, and facts about its graphs."""

    weights: dict[str, Tensor]
    rows: list[dict[str, Any]]
    wall_s: float
    graphs: int
    capture_s: float
    refusals: list[str]


def random_data(train_images: int, val_images: int, device: torch.device) -> Data:
    """Return images of 3 x 32 x 32 random pixels."""
    draws = Generator().manual_seed(7)

    def split(count: int) -> Split:
        images = torch.randint(256, (count, 3, 32, 32), generator=draws, dtype=torch.uint8)
        return Split(images, torch.randint(CLASSES, (count,), generator=draws)).to(device)

    return Data(split(train_images), split(val_images), split(val_images))


def recipe_of(case: Case) -> Recipe:
    """Return the recipe of the case, shortened."""
    recipe = load_recipe("sprint" if case.recipe == MUON else case.recipe)
    recipe = replace(recipe, epochs=case.epochs, batch_size=case.batch)
    if case.recipe == MUON:
        rest = Rest("sgd", lr=0.1, weight_decay=5e-4, momentum=0.9, nesterov=True)
        muon = Optimizer("muon", 0.02, 0.01, momentum=0.9, nesterov=True, rest=rest)
        recipe = replace(recipe, optimizer=muon)
    if case.mean_every is None:
        return recipe
    return replace(
        recipe,
        augment=replace(recipe.augment, flip="alternate", crop_fill="reflect", cutout=8),
        loss=Loss(name="tet", mse_weight=0.05),
        weight_average=WeightAverage(decay=0.9, every_steps=case.mean_every),
    )


def network_of(case: Case) -> nn.Module:
    """Return the network of the case with its initial weights, on the CPU."""
    task = Task(case.num_steps, CLASSES, 3, 32, 32, (0.5,) * 3, (0.25,) * 3)
    return build_network(ENCODERS.resolve(case.encoder), BACKBONES.resolve(case.backbone), task, 0)


def training(
    make: Callable[[], nn.Module],
    case: Case,
    data: Data,
    graphs: bool,
    val_batch: int = VALIDATION_BATCH,
    **settings: Any,
) -> Ending:
    """Train a new network from the same state of every generator."""
    device = data.train.labels.device
    torch.manual_seed(5)  # seeds all devices
    built: Any = make()
    network: Any = move_network(built, device, case.precision)
    runners: list[Replaying] = []

    def replaying(*args: Any) -> Replaying:
        runners.append(cuda_graphs.replaying(*args))
        return runners[-1]

    with ExitStack() as changed:
        changed.enter_context(patch.object(loop, "replaying", replaying))
        changed.enter_context(patch.object(evaluation, "EVALUATION_BATCH", val_batch))
        changed.enter_context(use_backend(case.neurons))
        started = time.perf_counter()
        result = train(
            network,
            data,
            recipe_of(case),
            0,
            case.precision,
            Silent(),
            micro_batch=case.micro_batch,
            graphs=graphs,
            **settings,
        )
    weights = {name: value.cpu() for name, value in network.state_dict().items()}
    return Ending(
        weights,
        result.epoch_rows,
        time.perf_counter() - started,
        sum(runner.captured for runner in runners),
        sum(runner.capture_s for runner in runners),
        sorted({reason for runner in runners for reason in runner.refusals.values()}),
    )


def difference(one: Ending, other: Ending) -> str | None:
    """Describe the first difference of two trainings, or return None if they are equal."""
    for name, value in one.weights.items():
        if not torch.equal(value, other.weights[name]):
            gap = float((value.double() - other.weights[name].double()).abs().max())
            return f"{name} differs by up to {gap:.3g}"
    for row, twin in zip(one.rows, other.rows, strict=True):
        for name in row.keys() - {"wall_s", "images_per_s"}:
            if row[name] != twin[name]:
                return f"{name} of epoch {row['epoch']}: {row[name]} and {twin[name]}"
    return None


def compare(
    case: Case, device: torch.device, make: Callable[[], nn.Module] | None = None
) -> dict[str, Any]:
    """Train with and without graphs; if the results differ, train twice without graphs."""
    data = random_data(8 * case.batch + 4, 5 * VALIDATION_BATCH, device)
    make = make or (lambda: network_of(case))
    with conditions(torch.get_num_threads(), is_deterministic=True):
        eager = training(make, case, data, graphs=False)
        replayed = training(make, case, data, graphs=True)
        found = difference(eager, replayed)
        again = difference(eager, training(make, case, data, graphs=False)) if found else None
    return {
        "case": str(case),
        "is_equal": found is None,
        "difference": found,
        "eager_repeats_itself": again is None,
        "graphs": replayed.graphs,
        "capture_s": replayed.capture_s,
        "refusals": replayed.refusals,
        "eager_s": eager.wall_s,
        "replayed_s": replayed.wall_s,
    }


def compare_interrupted(
    device: torch.device, neurons: str = "eager", mean_every: int | None = None
) -> dict[str, Any]:
    """Interrupt a training with graphs twice, finish it without, and compare with a whole one."""
    case = Case("rate", recipe="gac", neurons=neurons, mean_every=mean_every)
    data = random_data(8 * case.batch + 4, 5 * VALIDATION_BATCH, device)
    with TemporaryDirectory() as folder, conditions(torch.get_num_threads(), True):
        whole = training(lambda: network_of(case), case, data, graphs=False)
        kept = Checkpoints(Path(folder), "cell")
        for batches in (13, 4, None):
            left = itertools.count()
            try:
                parts = training(
                    lambda: network_of(case),
                    case,
                    data,
                    graphs=batches is not None,
                    checkpoints=kept,
                    should_stop=lambda: batches is not None and next(left) >= batches,  # noqa: B023
                )
            except Interrupted:
                continue
    found = difference(whole, parts)
    return {"case": "interrupted with graphs, resumed without", "is_equal": found is None} | {
        "difference": found
    }


# --- networks that a graph cannot repeat ----------------------------------------------------------


class Trouble(Network):
    """A linear layer with dropout and noise from the given generator, and a fault of one kind.

    ``none`` has no fault. ``waits`` reads a number from the GPU. ``counts`` depends on its number
    of calls. ``breaks`` does something that no capture allows and no rehearsal detects.
    """

    def __init__(self, kind: str) -> None:
        nn.Module.__init__(self)  # it has neither an encoder nor a backbone
        self.backbone: Any = SimpleNamespace(num_steps=2)
        torch.manual_seed(3)
        self.kind, self.calls = kind, 0
        self.linear = nn.Linear(3 * 32 * 32, CLASSES)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor, generator: Generator) -> Tensor:
        """Return the logits of two steps."""
        noise = torch.rand(images.shape, generator=generator, device=images.device)
        x = self.dropout((images + noise).flatten(1))
        if self.kind == "waits" and float(x.mean()) > 1e6:
            x = x + 1
        if self.kind == "counts":
            self.calls += 1
            x = x / self.calls
        if self.kind == "breaks" and x.is_cuda:
            torch.cuda.synchronize()
        logits: Tensor = self.linear(x)
        return torch.stack((logits, logits))


TROUBLES = ("none", "waits", "counts", "breaks")


def compare_trouble(kind: str, device: torch.device) -> dict[str, Any]:
    """Compare as :func:`compare` does; GPU and generators must work afterwards."""
    found = compare(Case("-", f"network that {kind}"), device, lambda: Trouble(kind))
    torch.rand(3, device=device)
    torch.nn.functional.dropout(torch.ones(3, device=device))
    expected = kind != "none" and device.type == "cuda"
    return found | {"is_as_expected": bool(found["refusals"]) == expected}


def checks(
    device: torch.device, neurons: str = "eager"
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield all comparisons by name, the most informative ones first."""
    cases = [replace(case, neurons=neurons) for case in CASES]
    if neurons != "eager":
        cases += [Case("rate"), Case("gac", "ms_resnet18", "gac")]
    for case in cases[:4]:
        yield str(case), partial(compare, case, device)
    for kind in TROUBLES[:-1]:
        yield kind, partial(compare_trouble, kind, device)
    yield "interrupted", partial(compare_interrupted, device, neurons)
    yield "interrupted, with a mean", partial(compare_interrupted, device, neurons, mean_every=2)
    for case in cases[4:]:
        yield str(case), partial(compare, case, device)
    yield "breaks", partial(compare_trouble, "breaks", device)


# --- speed ----------------------------------------------------------------------------------------


def throughput(case: Case, images: int, graphs: bool, device: torch.device) -> dict[str, Any]:
    """Train and return the images per second of the last epoch, with other facts."""
    data = random_data(images, max(1, images // 10), device)
    ending = training(lambda: network_of(case), case, data, graphs, val_batch=200)
    return {
        "case": str(case),
        "graphs": ending.graphs if graphs else 0,
        "images_per_s": ending.rows[-1]["images_per_s"],
        "first_epoch_s": ending.rows[0]["wall_s"],
        "last_epoch_s": ending.rows[-1]["wall_s"],
        "capture_s": ending.capture_s,
        "refusals": ending.refusals,
    }
