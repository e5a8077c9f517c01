"""Augmentation of whole batches on their device; every random number from the given generator."""

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
    """Padded crop, flip, policy, scale to [0, 1], erasing, CutMix or Mixup, those that there are.

    Resized crops come before: they are cut when the images are read (``cropping.py``).

    ``generator`` lives on the CPU: the draws are a few numbers per image, and the same on every
    device. How many they are does not depend on the images.
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
    """Pad with black, then cut a window of the old size at a random place, one per image."""
    batch, _, height, width = images.shape
    draws = torch.randint(2 * padding + 1, (2, batch, 1), generator=generator)
    offsets = onto(draws, images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)  # (batch, height)
    columns = offsets[1] + torch.arange(width, device=images.device)
    padded = F.pad(images, (padding,) * 4)
    every = torch.arange(batch, device=images.device)[:, None, None]
    # The two index groups around ":" put the channel last.
    return padded[every, :, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def _mix(batch: Batch, settings: Augment, generator: Generator) -> Batch:
    """One coin decides: CutMix, Mixup or neither."""
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
    """share x + (1 - share) x', with x' of a shuffled copy of the batch, labels likewise.

    ``share`` is one draw of Beta(alpha, alpha) for the batch. Source: Zhang et al., mixup, ICLR
    2018 (arXiv 1710.09412), section 2.
    """
    share = _beta(alpha, generator)
    order = onto(torch.randperm(len(batch.labels), generator=generator), batch.images.device)
    # unlike a sum of two products, lerp does not leave [0, 1] by a rounding
    images = batch.images[order].lerp(batch.images, share)
    return Batch(images, batch.labels, batch.labels[order], share)


def cutmix(batch: Batch, beta: float, generator: Generator) -> Batch:
    """Paste one box, at the same place in every image, from a shuffled copy of the batch.

    The box covers 1 - Beta(beta, beta) of the area before it is cut at the border; ``share`` is
    what is really left. Source: Yun et al., CutMix, ICCV 2019 (arXiv 1905.04899), algorithm 1.
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
    """One draw of Beta(beta, beta); torch's own sampler takes no generator, so inverted at 1."""
    if beta == 1:
        return torch.rand((), generator=generator).item()
    with torch_draws_from(generator):
        return Beta(beta, beta).sample().item()
