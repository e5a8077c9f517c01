"""The one training loop, and the evaluation that measures every prefix of the T steps."""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor
from torch.nn import functional as F

from codingbench.augment import Batch, augment, to_unit
from codingbench.backbone import Network
from codingbench.image_files import Split
from codingbench.recipes import Recipe

EVALUATION_BATCH = 200  # images
_REPORT_EVERY_S = 0.2


class TrainingError(Exception):
    """The training cannot go on: the cell has failed."""


@dataclass(frozen=True)
class Pulse:
    """Where a running cell stands; sent several times a second."""

    epoch: int  # 1-based
    epochs: int
    done: float  # share of the cell's training, in [0, 1]
    images_per_s: float
    loss: float
    accuracy: float  # of the training images of this epoch so far


class Listener(Protocol):
    """Hears what happens in a running cell."""

    def pulse(self, pulse: Pulse) -> None:
        """The training goes on."""

    def epoch_done(self, row: dict[str, Any]) -> None:
        """An epoch is complete; ``row`` has the columns of table ``epochs``."""


@dataclass(frozen=True)
class Data:
    """The images of a cell, on its device; validation images are held out of the training ones."""

    train: Split
    val: Split
    test: Split


@dataclass(frozen=True)
class Training:
    """What a training leaves behind, besides the trained network itself."""

    epoch_rows: list[dict[str, Any]]
    selected_epoch: int  # 1-based; best validation accuracy, the earliest of equals
    selected_weights: dict[str, Tensor]
    wall_s: float
    images_per_s: float


@dataclass(frozen=True)
class Evaluation:
    """Test results; ``accuracy[t - 1]`` belongs to the mean of the first t logits."""

    accuracy: list[float]
    loss: float
    labels: Int64[Tensor, "image"]
    predictions: Int64[Tensor, "image"]
    margins: Float[Tensor, "image"]


def stream(seed: int, purpose: str, device: torch.device | str = "cpu") -> Generator:
    """A generator of its own for each purpose, so that no draw of one shifts another."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


def hold_out(split: Split, fraction: float) -> tuple[Split, Split]:
    """Training and validation images: the last of each class, ``fraction`` of all, at least one.

    Raises:
        TrainingError: fewer than two images.
    """
    count = len(split.labels)
    if count < 2:
        raise TrainingError(f"at least 2 training images are needed, one to validate; got {count}")
    held = min(count - 1, max(1, round(fraction * count)))
    rank = torch.zeros(count, dtype=torch.long)
    for label in split.labels.unique():
        members = (split.labels == label).nonzero().flatten()
        rank[members] = torch.arange(len(members))
    by_rank = torch.argsort(rank, stable=True)
    kept, val = by_rank[:-held].sort().values, by_rank[-held:].sort().values
    return (
        Split(split.images[kept], split.labels[kept]),
        Split(split.images[val], split.labels[val]),
    )


def train(
    network: Network, data: Data, recipe: Recipe, seed: int, precision: str, listener: Listener
) -> Training:
    """Train in place for ``recipe.epochs`` epochs.

    The order of the images and every augmentation depend on the seed and the epoch alone: all
    codings see the same batches.

    Raises:
        TrainingError: the loss is not finite.
    """
    device = next(network.parameters()).device
    optimizer = _optimizer(network, recipe)
    draws = stream(seed, "encoder", device)
    batches = math.ceil(len(data.train.labels) / recipe.batch_size)
    rows: list[dict[str, Any]] = []
    best, best_epoch, best_weights = -1.0, 0, {}
    started = time.perf_counter()
    training_s = 0.0
    for epoch in range(recipe.epochs):
        epoch_started = time.perf_counter()
        network.train()
        meter = _Meter(epoch, recipe.epochs, len(data.train.labels), listener)
        for index, batch in enumerate(_batches(data.train, recipe, seed, epoch)):
            rate = recipe.optimizer.lr * _factor(recipe, epoch, index, batches)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with _autocast(device, precision):
                logits = network(batch.images, draws).float().mean(0)
            loss = batch.loss(logits, recipe.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            meter.add(loss.detach(), logits.detach(), batch.labels)
        meter.report()
        epoch_s = time.perf_counter() - epoch_started
        training_s += epoch_s
        val = evaluate(network, data.val, stream(seed, "validation", device), precision)
        rows.append(
            {
                "epoch": epoch + 1,
                "learning_rate": optimizer.param_groups[0]["lr"],
                "train_loss": meter.loss,
                "train_accuracy": meter.accuracy,
                "val_loss": val.loss,
                "val_accuracy": val.accuracy[-1],
                "images_per_s": len(data.train.labels) / epoch_s,
                "wall_s": time.perf_counter() - epoch_started,
            }
        )
        listener.epoch_done(rows[-1])
        if val.accuracy[-1] > best:
            best, best_epoch = val.accuracy[-1], epoch + 1
            best_weights = copy.deepcopy(network.state_dict())
    images_per_s = recipe.epochs * len(data.train.labels) / training_s
    return Training(rows, best_epoch, best_weights, time.perf_counter() - started, images_per_s)


def evaluate(
    network: Network,
    split: Split,
    generator: Generator,
    precision: str = "fp32",
    each_batch: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Accuracy after every t <= T, and the final prediction of each image; no augmentation.

    ``each_batch`` hears how many images are done.
    """
    device = next(network.parameters()).device
    network.eval()
    hits, loss, predictions, margins = [], 0.0, [], []
    with torch.no_grad():
        for start in range(0, len(split.labels), EVALUATION_BATCH):
            chunk = slice(start, start + EVALUATION_BATCH)
            labels = split.labels[chunk]
            with _autocast(device, precision):
                logits = network(to_unit(split.images[chunk]), generator).float()
            steps = torch.arange(1, len(logits) + 1, device=device)[:, None, None]
            means = logits.cumsum(0) / steps  # (time, batch, class)
            hits.append((means.argmax(2) == labels).sum(1))
            loss += F.cross_entropy(means[-1], labels, reduction="sum").item()
            predictions.append(means[-1].argmax(1))
            top = means[-1].topk(2).values
            margins.append(top[:, 0] - top[:, 1])
            each_batch(start + len(labels))
    count = len(split.labels)
    return Evaluation(
        accuracy=(torch.stack(hits).sum(0).cpu().double() / count).tolist(),
        loss=loss / count,
        labels=split.labels.cpu(),
        predictions=torch.cat(predictions).cpu(),
        margins=torch.cat(margins).cpu(),
    )


class _Meter:
    """Running loss and accuracy of an epoch; sums stay on the device between two reports."""

    def __init__(self, epoch: int, epochs: int, total: int, listener: Listener) -> None:
        self.epoch, self.epochs, self.total, self.listener = epoch, epochs, total, listener
        self.loss = self.accuracy = math.nan
        self._loss_sum: Tensor | float = 0.0
        self._hits: Tensor | float = 0.0
        self._seen = 0
        self._started = self._reported = time.perf_counter()

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self._loss_sum = self._loss_sum + loss * len(labels)
        self._hits = self._hits + (logits.argmax(1) == labels).sum()
        self._seen += len(labels)
        if time.perf_counter() - self._reported > _REPORT_EVERY_S:
            self.report()

    def report(self) -> None:
        self._reported = time.perf_counter()
        self.loss = float(self._loss_sum) / self._seen
        self.accuracy = float(self._hits) / self._seen
        if not math.isfinite(self.loss):
            raise TrainingError(
                f"loss is {self.loss} in epoch {self.epoch + 1}, within the first "
                f"{self._seen} of {self.total} images; expected a finite number"
            )
        speed = self._seen / (self._reported - self._started)
        done = (self.epoch + self._seen / self.total) / self.epochs
        self.listener.pulse(
            Pulse(self.epoch + 1, self.epochs, done, speed, self.loss, self.accuracy)
        )


def _batches(split: Split, recipe: Recipe, seed: int, epoch: int) -> Iterator[Batch]:
    draws = stream(seed, f"data/{epoch}")
    order = torch.randperm(len(split.labels), generator=draws).to(split.labels.device)
    for chosen in order.split(recipe.batch_size):
        yield augment(split.images[chosen], split.labels[chosen], recipe.augment, draws)


def _optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    settings = recipe.optimizer
    if settings.name == "sgd":
        return torch.optim.SGD(
            network.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
    return torch.optim.AdamW(
        network.parameters(),
        lr=settings.lr,
        betas=(settings.momentum, 0.999),
        weight_decay=settings.weight_decay,
    )


def _factor(recipe: Recipe, epoch: int, batch: int, batches: int) -> float:
    """Share of the full learning rate: linear warm-up, then half a cosine to 0."""
    at = epoch + (batch / batches if recipe.schedule.per == "step" else 0.0)
    warmup = recipe.schedule.warmup_epochs
    if at < warmup:
        return (at + 1 / batches) / (warmup + 1 / batches)
    return 0.5 * (1 + math.cos(math.pi * (at - warmup) / (recipe.epochs - warmup)))


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
