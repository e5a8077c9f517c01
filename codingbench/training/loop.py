"""The training loop.

An interrupted training resumes from its checkpoint and ends with the same bits as one that was
never interrupted.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from codingbench.backbone import Network
from codingbench.datasets.crops import draw_crops
from codingbench.datasets.images import ImageSplit
from codingbench.neurons.ahead import compile_kernels
from codingbench.recipes.recipe import Recipe
from codingbench.runtime.lean_torch import take_step
from codingbench.training.augment import Batch, alternating_flips, augment
from codingbench.training.budget import OutOfTime, TimeBudget
from codingbench.training.checkpoint import Checkpoints, present_conditions
from codingbench.training.cuda_graphs import replaying
from codingbench.training.distributed import SINGLE_PROCESS, SingleProcess
from codingbench.training.evaluation import Evaluation, Evaluator, autocast, stream, stream_seed
from codingbench.training.graphs import EAGER, Eager, Tensors, tell_once
from codingbench.training.losses import training_loss
from codingbench.training.meter import Listener, Meter, TrainingError
from codingbench.training.schedule import (
    is_capturable,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    rate_factor,
    rate_of_state,
    set_rate,
)
from codingbench.training.splits import Data
from codingbench.training.weight_mean import WeightMean


@dataclass(frozen=True)
class Training:
    """The results of a training, besides the trained network itself."""

    epoch_rows: list[dict[str, Any]]
    selected_epoch: int  # 1-based; the earliest of those with the best validation accuracy
    selected_weights: dict[str, Tensor]
    wall_s: float  # all sessions, validations and checkpoints included
    images_per_s: float  # training images, without validation
    earlier_s: float = 0.0  # the part of wall_s that earlier sessions took
    conditions: list[dict[str, Any]] = field(default_factory=list)
    """Versions, device and threads of each session; an uninterrupted training has one session."""


class Interrupted(Exception):
    """The training stopped on request; its progress is in its checkpoints."""


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
    graphs: bool = True,
    budget: TimeBudget | None = None,
    tests_each_epoch: bool = False,
) -> Training:
    """Train the network in place for ``recipe.epochs`` epochs.

    With ``recipe.weight_average``, an exponential mean of the weights is validated and selected in
    their place, and the network has the mean at the end. Its own weights are only trained.

    The order of the images and every augmentation depend only on the seed and the epoch, so all
    codings see the same batches.

    Args:
        network: the network with its initial weights, on its device.
        data: the images, on the same device.
        recipe: optimizer, schedule, augmentation and number of epochs.
        seed: the seed of every random number of the training.
        precision: ``fp32`` or ``bf16``.
        listener: receives the progress and the row of every epoch.
        checkpoints: where to save. A checkpoint is written after every epoch unless the last one is
            too recent, when ``should_stop`` returns True, and at the end. If there is one at the
            start, the training resumes from it and ends with the same bits as one that was never
            interrupted.
        should_stop: called after every batch; True ends the training.
        micro_batch: largest number of images in one forward pass. A larger batch is split into
            pieces whose gradients add up to the gradient of its mean loss, followed by one step of
            the optimizer. Batch normalisation sees each piece separately, and stochastic codes are
            drawn for each piece. None runs the whole batch at once.
        ranks: the role of this process among those that train the network together. Each of them
            calls this function with the same data. The images of a forward pass are divided among
            them, and batch normalisation sees all of them.
        graphs: replay training steps and validations from CUDA graphs where the network allows it.
            The results have the same bits either way.
        budget: the time that the training may take; None: any. It is asked before each epoch. A
            checkpoint is written at the end of the last epoch that fits.
        tests_each_epoch: measure the accuracy on the test images after every epoch, too. It stands
            in the rows of the epochs and selects nothing; all else has the same bits either way.

    Raises:
        Interrupted: ``should_stop`` returned True.
        OutOfTime: the next epoch would not fit into the budget, or the final measurement does not.
        StoreError: a checkpoint cannot be written or read.
        TrainingError: the loss is not finite, or the checkpoint was written on another kind of
            device.
    """
    run = _Run(
        network,
        data,
        recipe,
        seed,
        precision,
        listener,
        micro_batch,
        ranks,
        graphs,
        tests_each_epoch,
    )
    try:
        return _train(run, checkpoints, should_stop, budget)
    finally:
        run.release()


def _train(
    run: "_Run",
    checkpoints: Checkpoints | None,
    should_stop: Callable[[], bool],
    budget: TimeBudget | None,
) -> Training:
    saved = checkpoints.load() if checkpoints else None
    if saved:
        run.restore(saved)
    is_saved = bool(saved)

    def stop_if_requested() -> None:
        if should_stop():
            if checkpoints:
                checkpoints.save(run.state())
            raise Interrupted

    def stop_if_out_of_time() -> None:
        try:
            if budget:
                save_s = checkpoints.save_s if checkpoints else 0.0
                budget.check(run.rows, run.recipe.epochs, save_s)
        except OutOfTime:
            if checkpoints and run.rows and not is_saved:
                checkpoints.save(run.state())
            raise

    stop_if_out_of_time()
    while not run.is_done:
        run.train_epoch(stop_if_requested)
        run.validate(stop_if_requested)
        is_saved = checkpoints is not None and (run.is_done or checkpoints.is_due())
        if checkpoints and is_saved:
            checkpoints.save(run.state())
        if not run.is_done:  # the budget has time for the final measurement already
            stop_if_out_of_time()
    return run.result()


class _Run:
    """A running training, which can be saved and restored between any two batches."""

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
        graphs: bool,
        tests_each_epoch: bool = False,
    ) -> None:
        self.network, self.data, self.recipe = network, data, recipe
        self.seed, self.precision, self.listener = seed, precision, listener
        self.micro_batch, self.ranks = micro_batch, ranks
        self.tests_each_epoch = tests_each_epoch
        self.forward = ranks.wrapped(network)
        self.device = next(network.parameters()).device
        self.optimizer = make_optimizer(network, recipe)
        self.rate = recipe.optimizer.lr
        self.mean = WeightMean(network, recipe.weight_average)
        self.draws = stream(seed, "encoder", self.device)
        # seeded anew before each evaluation, so that no evaluation changes what another one draws
        evaluation_draws = stream(seed, "validation", self.device)
        self.runner = self._runner(graphs, [self.draws, evaluation_draws])
        self.evaluator = Evaluator(network, evaluation_draws, precision, self.runner)
        self.rows: list[dict[str, Any]] = []
        self.best, self.best_epoch = -1.0, 0
        self.best_weights: dict[str, Tensor] = {}
        self.training_s = self.earlier_s = 0.0
        self.started = time.perf_counter()
        self.conditions = [present_conditions(self.device)]
        self.epoch = 0
        self._begin_epoch()

    def _runner(self, graphs: bool, generators: list[Generator]) -> Eager:
        """Return the runner of the steps: CUDA graphs if they are wanted and possible."""
        if not graphs or self.device.type != "cuda":
            return EAGER
        if self.ranks.count > 1:
            tell_once("CUDA graphs are off: several devices train each network")
            return EAGER
        if not is_capturable(self.optimizer):
            tell_once("CUDA graphs are off: the network has parameters other than real numbers")
            return EAGER
        return replaying(self.network, generators)

    def release(self) -> None:
        """Free the memory that only further steps would need."""
        self.runner.release()
        if self.device.type == "cuda":
            self.optimizer.zero_grad(set_to_none=True)

    @property
    def is_done(self) -> bool:
        """True once all epochs are complete."""
        return self.epoch == self.recipe.epochs

    def _begin_epoch(self) -> None:
        images = len(self.data.train.labels)
        self.batch = 0
        self.meter = Meter(self.epoch, self.recipe.epochs, images, self.listener, self.ranks.total)
        self.data_draws = stream(self.seed, f"data/{self.epoch}")
        self.order = torch.randperm(images, generator=self.data_draws)
        crop_draws = stream(self.seed, f"crop/{self.epoch}")
        self.crops = draw_crops(self.recipe.augment.resized_crop, images, crop_draws)
        self.flips = self._alternating_flips()

    def _alternating_flips(self) -> Tensor | None:
        """Return which images the epoch flips, in its order; None if each batch draws them."""
        if self.recipe.augment.flip != "alternate":
            return None
        draws = stream(self.seed, "flip")
        return alternating_flips(self.order, self.epoch, draws, self.device)

    def train_epoch(self, after_batch: Callable[[], None]) -> None:
        """Train on the remaining batches of the epoch."""
        self.network.train()
        self.meter.start()
        size = self.recipe.batch_size
        batches, done = math.ceil(len(self.order) / size), self.batch * size
        crops = self.crops and self.crops.part(done)
        for images, labels in self.data.train.batches(size, self.order[done:], crops):
            start = self.batch * size
            flips = None if self.flips is None else self.flips[start : start + len(labels)]
            batch = augment(images, labels, self.recipe.augment, self.data_draws, flips)
            if self.device.type == "cuda" and self.ranks.count == 1:
                self._compile_ahead(batch.images)
            factor = rate_factor(self.recipe, self.epoch, self.batch, batches)
            steps = self.epoch * batches + self.batch + 1
            self._step(batch, self.recipe.optimizer.lr * factor, self.mean.is_due(steps))
            self.batch += 1
            after_batch()
        self.meter.report()

    def _compile_ahead(self, images: Tensor) -> None:
        """Compile the neurons' kernels together, once for each kind of network."""
        kind = self.network.backbone.num_steps, self.precision
        context = partial(autocast, self.device, self.precision)
        compile_kernels(self.network, images, kind, context)

    def _step(self, batch: Batch, rate: float, updates_mean: bool = False) -> None:
        """Take one step of the optimizer, without waiting for the device."""
        self.rate = rate
        set_rate(self.optimizer, rate)
        self.ranks.separate_draws(self.draws, self.seed, self.epoch, self.batch)
        step = self._forward_update_and_average if updates_mean else self._forward_and_update
        sums = self.runner(step, *batch.tensors())
        pieces = batch.pieces(self.micro_batch)
        for piece, loss_sum, hits in zip(pieces, sums[::2], sums[1::2], strict=True):
            self.meter.add(loss_sum, hits, len(piece.labels))

    def _forward_and_update(
        self,
        images: Tensor,
        labels: Tensor,
        other_labels: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensors:
        """Take one step on a batch; return the summed loss and the hits of each of its pieces."""
        batch = Batch(images, labels, other_labels, weights=weights)
        sums: list[Tensor] = []
        self.optimizer.zero_grad(set_to_none=True)
        pieces = batch.pieces(self.micro_batch)
        for number, whole in enumerate(pieces, 1):
            piece = self.ranks.share(whole)
            with self.ranks.summing_gradients(is_last=number == len(pieces)):
                with autocast(self.device, self.precision):
                    logits = self.forward(piece.images, self.draws).float()
                loss = training_loss(logits, piece, self.recipe)
                # DDP averages the gradients over the ranks, but this step needs their sum
                share = self.ranks.count * len(piece.labels) / len(batch.labels)
                (loss * share).backward()
            hits = (logits.detach().mean(0).argmax(1) == piece.labels).sum()
            sums += [loss.detach() * len(piece.labels), hits]
        take_step(self.optimizer)
        return tuple(sums)

    def _forward_update_and_average(self, *batch: Tensor) -> Tensors:
        """Take one step on a batch, then update the mean of the weights."""
        sums = self._forward_and_update(*batch)
        self.mean.update()
        return sums

    def validate(self, after_batch: Callable[[], None]) -> None:
        """End the epoch: evaluate it, add its row, and keep its weights if they are the best."""
        started = time.perf_counter()
        is_tested = self.tests_each_epoch
        with self.mean.applied():
            val = self._evaluate(self.data.val, "validation", after_batch)
            test = self._evaluate(self.data.test, "test", after_batch) if is_tested else None
            if val.accuracy[-1] > self.best:
                self.best, self.best_epoch = val.accuracy[-1], self.epoch + 1
                self.best_weights = copy.deepcopy(self.network.state_dict())
        self.training_s += self.meter.seconds
        self.rows.append(
            {
                "epoch": self.epoch + 1,
                "learning_rate": self.rate,
                "train_loss": self.meter.loss,
                "train_accuracy": self.meter.accuracy,
                "val_loss": val.loss,
                "val_accuracy": val.accuracy[-1],
                "test_accuracy": test.accuracy[-1] if test else None,
                "images_per_s": len(self.order) / self.meter.seconds,
                "wall_s": self.meter.seconds + time.perf_counter() - started,
            }
        )
        self.listener.epoch_done(self.rows[-1])
        self.epoch += 1
        self._begin_epoch()

    def _evaluate(
        self, split: ImageSplit, purpose: str, after_batch: Callable[[], None]
    ) -> Evaluation:
        """Evaluate the network with the draws of ``purpose``, which are the same in every epoch."""
        self.evaluator.draws.manual_seed(stream_seed(self.seed, purpose))
        return self.evaluator(split, lambda images: after_batch())

    def result(self) -> Training:
        """Return the results of the training; the network gets the weights to be evaluated."""
        self.mean.apply()
        return Training(
            self.rows,
            self.best_epoch,
            self.best_weights,
            time.perf_counter() - self.started,
            len(self.order) * self.epoch / self.training_s,
            self.earlier_s,
            self.conditions,
        )

    def state(self) -> dict[str, Any]:
        """Return everything on which the rest of the training depends, for a checkpoint.

        The state after the last epoch holds everything that :meth:`result` needs.
        """
        on_cuda = self.device.type == "cuda"
        return {
            "network": self.mean.own_state(),
            "mean": self.mean.state(),
            "optimizer": optimizer_state(self.optimizer, self.rate),
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
        """Resume from a state that :meth:`state` returned.

        Raises:
            TrainingError: the state comes from another kind of device, which draws other random
                numbers.
        """
        before = state["conditions"][-1]["device"]
        if before != self.device.type:
            raise TrainingError(
                f"the checkpoint was written by a training on {before}, expected "
                f"{self.device.type}: resume there, or remove the checkpoint to start again"
            )
        self.network.load_state_dict(state["network"])
        self.mean.restore(state.get("mean", {}))  # checkpoints of 0.7.0 have none
        load_optimizer_state(self.optimizer, state["optimizer"])
        self.rate = rate_of_state(state["optimizer"])
        self.epoch = state["epoch"]
        self._begin_epoch()
        self.batch = state["batch"]
        self.meter.restore(state["meter"], self.device)
        # a checkpoint of an earlier version knows no test accuracies
        self.rows = [{"test_accuracy": None, **row} for row in state["rows"]]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.best_weights = state["best_weights"]
        self.training_s = state["training_s"]
        self.earlier_s = state["wall_s"]
        self.started = time.perf_counter() - self.earlier_s
        self.draws.set_state(state["draws"])
        self.data_draws.set_state(state["data_draws"])
        torch.set_rng_state(state["torch_draws"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_draws"], self.device)
        self.conditions = [*state["conditions"], *self.conditions]
