"""Evaluation of a network on images it was not trained on, after every prefix of the T steps."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor
from torch.nn import functional as F

from codingbench.backbone import Network
from codingbench.datasets.images import ImageSplit
from codingbench.datasets.pixels import to_unit
from codingbench.encoder import deferring_checks
from codingbench.training.graphs import EAGER, Eager, Tensors

EVALUATION_BATCH = 200  # of 32 x 32 pixels; larger images in proportionally smaller batches


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation.

    ``accuracy[t - 1]`` is the accuracy of the mean of the first t logits. Loss, predictions and
    margins (largest minus second largest mean logit) are those after all T steps.
    """

    accuracy: list[float]
    loss: float
    labels: Int64[Tensor, "image"]
    predictions: Int64[Tensor, "image"]
    margins: Float[Tensor, "image"]


def stream(seed: int, purpose: str, device: torch.device | str = "cpu") -> Generator:
    """Return a generator for one purpose, so that draws for one purpose do not affect another."""
    return Generator(device).manual_seed(stream_seed(seed, purpose))


def stream_seed(seed: int, purpose: str) -> int:
    """Return the initial seed of the generator that :func:`stream` returns."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context: ``bf16`` computes matrix products in bfloat16, ``fp32`` changes nothing.

    Weights stay in float32. The context must be left before the end of a captured function, so
    that a CUDA graph casts the weights at every replay.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def evaluate(
    network: Network,
    split: ImageSplit,
    generator: Generator,
    precision: str = "fp32",
    each_batch: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Measure the accuracy after every t <= T and predict each image, without augmentation.

    Args:
        each_batch: called after every batch with the number of images that are done.

    Raises:
        ValueError: the code of an image is not finite.
    """
    return Evaluator(network, generator, precision)(split, each_batch)


class Evaluator:
    """Evaluates one network, as often as it is called; leaves it in evaluation mode.

    Args:
        draws: the generator that the encoder draws from.
        precision: ``fp32`` or ``bf16``.
        runner: runs each batch, eagerly or from a CUDA graph. A graph knows its generator, so
            calls that share a runner must share ``draws``.
    """

    def __init__(
        self, network: Network, draws: Generator, precision: str, runner: Eager = EAGER
    ) -> None:
        self.network, self.draws, self.precision, self.runner = network, draws, precision, runner

    def __call__(
        self, split: ImageSplit, each_batch: Callable[[int], None] = lambda images: None
    ) -> Evaluation:
        """See :func:`evaluate`."""
        self.network.eval()
        batches, done, (_, height, width) = [], 0, split.shape
        size = max(1, min(EVALUATION_BATCH, EVALUATION_BATCH * 32 * 32 // (height * width)))
        with torch.no_grad():
            for images, labels in split.batches(size):
                batches.append(self.runner(self._measure, images, labels))
                done += len(labels)
                each_batch(done)
        return self._summary(split.labels, batches)

    def _measure(self, images: Tensor, labels: Tensor) -> Tensors:
        """Return hits after each step, summed loss, predictions, margins and, per code, a boolean
        that is True if the code is finite."""
        device = images.device
        with deferring_checks(self.network) as checks, autocast(device, self.precision):
            logits = self.network(to_unit(images), self.draws).float()
        steps = torch.arange(1, len(logits) + 1, device=device)[:, None, None]
        means = logits.cumsum(0) / steps  # (time, batch, class)
        top = means[-1].topk(2).values
        return (
            (means.argmax(2) == labels).sum(1),
            F.cross_entropy(means[-1], labels, reduction="sum"),
            means[-1].argmax(1),
            top[:, 0] - top[:, 1],
            *checks,
        )

    def _summary(self, labels: Tensor, batches: list[Tensors]) -> Evaluation:
        """Combine the results of all batches."""
        checks = [check for batch in batches for check in batch[4:]]
        if checks and not torch.stack(checks).all():
            raise self.network.encoder.not_finite()
        hits, losses, predictions, margins = zip(*(batch[:4] for batch in batches), strict=True)
        count = len(labels)
        loss = 0.0
        for batch_loss in torch.stack(losses).tolist():
            loss += batch_loss  # not sum(), which rounds differently since Python 3.12
        return Evaluation(
            accuracy=(torch.stack(hits).sum(0).cpu().double() / count).tolist(),
            loss=loss / count,
            labels=labels.cpu(),
            predictions=torch.cat(predictions).cpu(),
            margins=torch.cat(margins).cpu(),
        )
