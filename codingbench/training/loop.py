"""The one training loop: any interrupted training goes on from its checkpoint, bit by bit."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from codingbench.backbone import Network
from codingbench.datasets.crops import draw_crops
from codingbench.datasets.images import ImageSplit
from codingbench.recipes.recipe import Recipe
from codingbench.training.augment import Batch, augment
from codingbench.training.checkpoint import Checkpoints, present_conditions
from codingbench.training.distributed import SINGLE_PROCESS, SingleProcess
from codingbench.training.evaluation import autocast, evaluate, stream
from codingbench.training.meter import Listener, Meter, TrainingError
from codingbench.training.schedule import make_optimizer, rate_factor

AnySplit = TypeVar("AnySplit", bound=ImageSplit)


@dataclass(frozen=True)
class Data:
    """The images of a cell, on its device; validation images are held out of the training ones."""

    train: ImageSplit
    val: ImageSplit
    test: ImageSplit


@dataclass(frozen=True)
class Training:
    """What a training leaves behind, besides the trained network itself."""

    epoch_rows: list[dict[str, Any]]
    selected_epoch: int  # 1-based; best validation accuracy, the earliest of equals
    selected_weights: dict[str, Tensor]
    wall_s: float  # of all sittings, with the validations and checkpoints
    images_per_s: float  # trained on
    conditions: list[dict[str, Any]] = field(default_factory=list)
    """Of each sitting (a training that is never interrupted has one): versions, device, threads."""


def hold_out(split: AnySplit, fraction: float) -> tuple[AnySplit, AnySplit]:
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
    return split.subset(kept), split.subset(val)


class Interrupted(Exception):
    """The training was asked to stop, and did; what it had reached is in its checkpoints."""


def train(
    network: Network,
    data: Data,
    recipe: Recipe,
    seed: int,
    precision: str,
    listener: Listener,
    *,
    checkpoints: Checkpoints | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    micro_batch: int | None = None,
    ranks: SingleProcess = SINGLE_PROCESS,
) -> Training:
    """Train in place for ``recipe.epochs`` epochs.

    The order of the images and every augmentation depend on the seed and the epoch alone: all
    codings see the same batches.

    Args:
        network: with its initial weights, on its device.
        data: on the same device.
        checkpoints: one is written after every epoch unless the last is too recent, when the
            training is asked to stop, and at the end. If there is one at the start, the training
            goes on from it, and ends with the bits of one that was never interrupted.
        should_stop: asked after every batch.
        micro_batch: images of one forward pass. A larger batch is run in pieces whose gradients
            add up to the gradient of its mean loss, before one step of the optimizer. Batch
            normalisation sees each piece by itself, and stochastic codes are drawn for each piece.
            None, or no less than the batch: all at once.
        ranks: of this process among those that train the network together, each calling this with
            the same data; the images of a forward pass are shared out among them, and batch
            normalisation sees them all.

    Raises:
        Interrupted: ``should_stop`` said so.
        StoreError: a checkpoint cannot be written or read.
        TrainingError: the loss is not finite, or the checkpoint is of another kind of device.
    """
    run = _Run(network, data, recipe, seed, precision, listener, micro_batch, ranks)
    saved = checkpoints.load() if checkpoints else None
    if saved:
        run.restore(saved)

    def stop_if_asked() -> None:
        if should_stop():
            if checkpoints:
                checkpoints.save(run.state())
            raise Interrupted

    while not run.is_done:
        run.train_epoch(stop_if_asked)
        run.validate(stop_if_asked)
        if checkpoints and (run.is_done or checkpoints.is_due()):
            checkpoints.save(run.state())
    return run.result()


class _Run:
    """A training under way, which can be saved and restored between any two batches."""

    def __init__(
        self,
        network: Network,
        data: Data,
        recipe: Recipe,
        seed: int,
        precision: str,
        listener: Listener,
        micro_batch: int | None,
        ranks: SingleProcess,
    ) -> None:
        self.network, self.data, self.recipe = network, data, recipe
        self.seed, self.precision, self.listener = seed, precision, listener
        self.micro_batch, self.ranks = micro_batch, ranks
        self.forward = ranks.wrapped(network)
        self.device = next(network.parameters()).device
        self.optimizer = make_optimizer(network, recipe)
        self.draws = stream(seed, "encoder", self.device)
        self.rows: list[dict[str, Any]] = []
        self.best, self.best_epoch = -1.0, 0
        self.best_weights: dict[str, Tensor] = {}
        self.training_s = 0.0
        self.started = time.perf_counter()
        self.conditions = [present_conditions(self.device)]
        self.epoch = 0
        self._begin_epoch()

    @property
    def is_done(self) -> bool:
        """All epochs are complete."""
        return self.epoch == self.recipe.epochs

    def _begin_epoch(self) -> None:
        images = len(self.data.train.labels)
        self.batch = 0
        self.meter = Meter(self.epoch, self.recipe.epochs, images, self.listener, self.ranks.total)
        self.data_draws = stream(self.seed, f"data/{self.epoch}")
        self.order = torch.randperm(images, generator=self.data_draws)
        crop_draws = stream(self.seed, f"crop/{self.epoch}")
        self.crops = draw_crops(self.recipe.augment.resized_crop, images, crop_draws)

    def train_epoch(self, after_batch: Callable[[], None]) -> None:
        """Train on what is left of the epoch's batches."""
        self.network.train()
        self.meter.start()
        size = self.recipe.batch_size
        batches, done = math.ceil(len(self.order) / size), self.batch * size
        crops = self.crops and self.crops.part(done)
        for images, labels in self.data.train.batches(size, self.order[done:], crops):
            batch = augment(images, labels, self.recipe.augment, self.data_draws)
            factor = rate_factor(self.recipe, self.epoch, self.batch, batches)
            self._step(batch, self.recipe.optimizer.lr * factor)
            self.batch += 1
            after_batch()
        self.meter.report()

    def _step(self, batch: Batch, rate: float) -> None:
        """One step of the optimizer. Nothing in it waits for the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        self.ranks.draw_apart(self.draws, self.seed, self.epoch, self.batch)
        pieces = batch.pieces(self.micro_batch)
        for number, whole in enumerate(pieces, 1):
            piece = self.ranks.share(whole)
            with self.ranks.summing_gradients(is_last=number == len(pieces)):
                with autocast(self.device, self.precision):
                    logits = self.forward(piece.images, self.draws).float().mean(0)
                loss = piece.loss(logits, self.recipe.label_smoothing)
                # gradients become means over the ranks, but are to be sums
                share = self.ranks.count * len(piece.labels) / len(batch.labels)
                (loss * share).backward()
            self.meter.add(loss.detach(), logits.detach(), piece.labels, len(whole.labels))
        self.optimizer.step()

    def validate(self, after_batch: Callable[[], None]) -> None:
        """End the epoch: its row, and its weights if they are the best so far."""
        draws = stream(self.seed, "validation", self.device)
        started = time.perf_counter()
        val = evaluate(
            self.network, self.data.val, draws, self.precision, lambda images: after_batch()
        )
        self.training_s += self.meter.seconds
        self.rows.append(
            {
                "epoch": self.epoch + 1,
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                "train_loss": self.meter.loss,
                "train_accuracy": self.meter.accuracy,
                "val_loss": val.loss,
                "val_accuracy": val.accuracy[-1],
                "images_per_s": len(self.order) / self.meter.seconds,
                "wall_s": self.meter.seconds + time.perf_counter() - started,
            }
        )
        self.listener.epoch_done(self.rows[-1])
        self.epoch += 1
        if val.accuracy[-1] > self.best:
            self.best, self.best_epoch = val.accuracy[-1], self.epoch
            self.best_weights = copy.deepcopy(self.network.state_dict())
        self._begin_epoch()

    def result(self) -> Training:
        """What is left behind."""
        return Training(
            self.rows,
            self.best_epoch,
            self.best_weights,
            time.perf_counter() - self.started,
            len(self.order) * self.epoch / self.training_s,
            self.conditions,
        )

    def state(self) -> dict[str, Any]:
        """All that the rest of the training depends on, for a checkpoint; once it is done, all
        that :meth:`result` needs, with the network's last weights."""
        on_cuda = self.device.type == "cuda"
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "meter": self.meter.state(),
            "rows": self.rows,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "training_s": self.training_s,
            "wall_s": time.perf_counter() - self.started,
            "draws": self.draws.get_state(),
            "data_draws": self.data_draws.get_state(),
            "torch_draws": torch.get_rng_state(),
            "cuda_draws": torch.cuda.get_rng_state(self.device) if on_cuda else None,
            "conditions": self.conditions,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave.

        Raises:
            TrainingError: it is of another kind of device, whose random numbers are others.
        """
        before = state["conditions"][-1]["device"]
        if before != self.device.type:
            raise TrainingError(
                f"its checkpoint is of a training on {before}, expected {self.device.type}: go on "
                "there, or remove the checkpoint to begin anew"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch = state["epoch"]
        self._begin_epoch()
        self.batch = state["batch"]
        self.meter.restore(state["meter"], self.device)
        self.rows = state["rows"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.best_weights = state["best_weights"]
        self.training_s = state["training_s"]
        self.started = time.perf_counter() - state["wall_s"]
        self.draws.set_state(state["draws"])
        self.data_draws.set_state(state["data_draws"])
        torch.set_rng_state(state["torch_draws"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_draws"], self.device)
        self.conditions = [*state["conditions"], *self.conditions]
