"""A network on images it was not trained on: every prefix of the T steps is measured."""

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

EVALUATION_BATCH = 200  # images of up to 32 x 32 pixels, of larger ones as many as have no more


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


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """``bf16``: matrix products in bfloat16, the weights stay float32; ``fp32``: nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def evaluate(
    network: Network,
    split: ImageSplit,
    generator: Generator,
    precision: str = "fp32",
    each_batch: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Accuracy after every t <= T, and the final prediction of each image; no augmentation.

    ``each_batch`` hears how many images are done. The network is left in evaluation mode.
    """
    device = next(network.parameters()).device
    network.eval()
    hits, losses, predictions, margins = [], [], [], []  # read once, at the end
    done, (_, height, width) = 0, split.shape
    size = max(1, min(EVALUATION_BATCH, EVALUATION_BATCH * 32 * 32 // (height * width)))
    with torch.no_grad():
        for images, labels in split.batches(size):
            with autocast(device, precision):
                logits = network(to_unit(images), generator).float()
            steps = torch.arange(1, len(logits) + 1, device=device)[:, None, None]
            means = logits.cumsum(0) / steps  # (time, batch, class)
            hits.append((means.argmax(2) == labels).sum(1))
            losses.append(F.cross_entropy(means[-1], labels, reduction="sum"))
            predictions.append(means[-1].argmax(1))
            top = means[-1].topk(2).values
            margins.append(top[:, 0] - top[:, 1])
            done += len(labels)
            each_batch(done)
    count = len(split.labels)
    loss = 0.0
    for batch_loss in torch.stack(losses).tolist():
        loss += batch_loss  # not sum(), which from Python 3.12 on rounds otherwise
    return Evaluation(
        accuracy=(torch.stack(hits).sum(0).cpu().double() / count).tolist(),
        loss=loss / count,
        labels=split.labels.cpu(),
        predictions=torch.cat(predictions).cpu(),
        margins=torch.cat(margins).cpu(),
    )
