"""Augmentation of whole batches on their device. All random numbers come from one generator."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Generator, Tensor
from torch.distributions import Beta
from torch.nn import functional as F

from codingbench.datasets.pixels import onto, to_unit
from codingbench.recipes.recipe import Augment
from codingbench.training.policies import apply_policy, erase_, torch_draws_from


@dataclass(frozen=True)
class Batch:
    """Images in [0, 1] with their labels.

    Args:
        other_labels: the second label of every image, if the images are mixed.
        share: weight of the first label, in [0, 1]; the second label has ``1 - share``.
        weights: both weights as a tensor, in place of ``share``: a CUDA graph reads a tensor anew
            at every replay.
    """

    images: Float[Tensor, "batch channel height width"]
    labels: Int64[Tensor, "batch"]
    other_labels: Int64[Tensor, "batch"] | None = None
    share: float = 1.0
    weights: Float[Tensor, "2"] | None = None

    def loss(self, logits: Float[Tensor, "batch class"], label_smoothing: float) -> Tensor:
        """Return the mean cross-entropy, weighted between both labels; 0 for an empty batch."""
        if not len(self.labels):
            return logits.sum()
        loss = F.cross_entropy(logits, self.labels, label_smoothing=label_smoothing)
        if self.other_labels is None:
            return loss
        other = F.cross_entropy(logits, self.other_labels, label_smoothing=label_smoothing)
        if self.weights is None:
            return self.share * loss + (1 - self.share) * other
        return self.weights[0] * loss + self.weights[1] * other

    def tensors(self) -> tuple[Tensor, ...]:
        """Return images, labels and, if they are mixed, the other labels and both weights."""
        if self.other_labels is None:
            return self.images, self.labels
        weights = onto(torch.tensor([self.share, 1 - self.share]), self.images.device)
        return self.images, self.labels, self.other_labels, weights

    def pieces(self, size: int | None) -> "list[Batch]":
        """Split into batches of ``size`` images, the last of which may be smaller.

        None keeps the batch whole. The mean of the pieces' losses, weighted by their numbers of
        images, is the loss of the batch.
        """
        if size is None or size >= len(self.labels):
            return [self]
        starts = range(0, len(self.labels), size)
        return [self._cut(start, start + size) for start in starts]

    def part(self, index: int, count: int) -> "Batch":
        """Return part ``index`` of ``count`` parts whose sizes differ by at most one image."""
        start, stop = (len(self.labels) * at // count for at in (index, index + 1))
        return self._cut(start, stop)

    def _cut(self, start: int, stop: int) -> "Batch":
        others = self.other_labels
        return replace(
            self,
            images=self.images[start:stop],
            labels=self.labels[start:stop],
            other_labels=None if others is None else others[start:stop],
        )


def augment(
    images: UInt8[Tensor, "batch channel height width"],
    labels: Int64[Tensor, "batch"],
    settings: Augment,
    generator: Generator,
) -> Batch:
    """Augment a batch as ``settings`` say.

    The order is padded crop, flip, policy, scaling to [0, 1], erasing, then CutMix or Mixup.
    Resized crops come earlier, when the images are read (``codingbench/datasets/crops.py``).

    Args:
        generator: a generator on the CPU, so that the numbers are the same on every device. How
            many are drawn does not depend on the content of the images.
    """
    if settings.crop_padding:
        images = random_crop(images, settings.crop_padding, generator)
    if settings.flip:
        flips = torch.rand(len(images), generator=generator) < 0.5
        mask = onto(flips, images.device)[:, None, None, None]
        images = torch.where(mask, images.flip(3), images)
    if settings.policy:
        images = apply_policy(images, settings.policy, generator)
    units = to_unit(images)
    if settings.erasing:
        erase_(units, settings.erasing, generator)
    return _mix(Batch(units, labels), settings, generator)


def random_crop(
    images: UInt8[Tensor, "batch channel height width"], padding: int, generator: Generator
) -> UInt8[Tensor, "batch channel height width"]:
    """Pad each image with black, then cut a window of its former size at a random position."""
    batch, _, height, width = images.shape
    draws = torch.randint(2 * padding + 1, (2, batch, 1), generator=generator)
    offsets = onto(draws, images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)  # (batch, height)
    columns = offsets[1] + torch.arange(width, device=images.device)
    padded = F.pad(images, (padding,) * 4)
    every = torch.arange(batch, device=images.device)[:, None, None]
    # indexing on both sides of ":" moves the channel to the end
    return padded[every, :, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def _mix(batch: Batch, settings: Augment, generator: Generator) -> Batch:
    """Apply CutMix, Mixup or neither, chosen by one random number."""
    cut, mixup_settings = settings.cutmix_probability, settings.mixup
    if not cut and not mixup_settings:
        return batch
    coin = torch.rand((), generator=generator).item()
    if coin < cut:
        return cutmix(batch, settings.cutmix_beta, generator)
    if mixup_settings and coin < cut + mixup_settings.probability:
        return mixup(batch, mixup_settings.alpha, generator)
    return batch


def mixup(batch: Batch, alpha: float, generator: Generator) -> Batch:
    """Mix each image x with an image x' of a shuffled copy: share x + (1 - share) x'.

    The labels are mixed likewise. ``share`` is drawn once per batch from Beta(alpha, alpha).
    Source: Zhang et al., mixup, ICLR 2018 (arXiv 1710.09412), section 2.
    """
    share = _beta(alpha, generator)
    order = onto(torch.randperm(len(batch.labels), generator=generator), batch.images.device)
    # unlike a sum of two products, lerp cannot leave [0, 1] through rounding
    images = batch.images[order].lerp(batch.images, share)
    return Batch(images, batch.labels, batch.labels[order], share)


def cutmix(batch: Batch, beta: float, generator: Generator) -> Batch:
    """Paste one box, at the same place in every image, from a shuffled copy of the batch.

    The box covers 1 - Beta(beta, beta) of the area before it is clipped at the border. ``share`` is
    the part of the area that is not covered after clipping. Source: Yun et al., CutMix, ICCV 2019
    (arXiv 1905.04899), algorithm 1.
    """
    count, _, height, width = batch.images.shape
    kept = _beta(beta, generator)
    cut = (1 - kept) ** 0.5
    box = []
    for size in (height, width):
        centre, half = int(torch.randint(size, (), generator=generator)), int(size * cut) // 2
        box.append((max(0, centre - half), min(size, centre + half)))
    (top, bottom), (left, right) = box
    order = onto(torch.randperm(count, generator=generator), batch.images.device)
    images = batch.images.clone()
    images[:, :, top:bottom, left:right] = batch.images[order, :, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return Batch(images, batch.labels, batch.labels[order], share)


def _beta(beta: float, generator: Generator) -> float:
    """Draw once from Beta(beta, beta)."""
    if beta == 1:  # the uniform distribution
        return torch.rand((), generator=generator).item()
    with torch_draws_from(generator):
        return Beta(beta, beta).sample().item()
