"""Augmentation of whole batches on their device. All random numbers come from one generator."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
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

    def loss(self, logits: Float[Tensor, "*time batch class"], label_smoothing: float) -> Tensor:
        """Return the mean cross-entropy, weighted between both labels; 0 for an empty batch.

        With a time axis, it is the mean over the steps too.
        """
        if not len(self.labels):
            return logits.sum()
        rows = logits.flatten(0, -2)

        def cross_entropy(labels: Tensor) -> Tensor:
            targets = labels.expand(logits.shape[:-1]).flatten()
            return F.cross_entropy(rows, targets, label_smoothing=label_smoothing)

        loss = cross_entropy(self.labels)
        if self.other_labels is None:
            return loss
        other = cross_entropy(self.other_labels)
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
    flips: Bool[Tensor, "batch"] | None = None,
) -> Batch:
    """Augment a batch as ``settings`` say.

    The order is padded crop, flip, policy, cutout, scaling to [0, 1], erasing, then CutMix or
    Mixup. Resized crops come earlier, when the images are read (``codingbench/datasets/crops.py``).

    Args:
        generator: a generator on the CPU, so that the numbers are the same on every device. How
            many are drawn does not depend on the content of the images.
        flips: the images to flip, on their device, as :func:`alternating_flips` returns them; None
            draws them. They are required if ``settings.flip`` is ``"alternate"``.
    """
    if settings.crop_padding:
        images = random_crop(images, settings.crop_padding, generator, settings.crop_fill)
    if settings.flip:
        if flips is None:
            flips = _drawn_flips(len(images), settings, generator, images.device)
        images = torch.where(flips[:, None, None, None], images.flip(3), images)
    if settings.policy:
        images = apply_policy(images, settings.policy, generator)
    if settings.cutout:
        images = cutout(images, settings.cutout, generator)
    units = to_unit(images)
    if settings.erasing:
        erase_(units, settings.erasing, generator)
    return _mix(Batch(units, labels), settings, generator)


def random_crop(
    images: UInt8[Tensor, "batch channel height width"],
    padding: int,
    generator: Generator,
    fill: str = "black",
) -> UInt8[Tensor, "batch channel height width"]:
    """Pad each image, then cut a window of its former size at a random position.

    Args:
        fill: ``black``, or ``reflect`` to pad with the image mirrored at its outermost pixels,
            which are not repeated (``padding_mode="reflect"`` in torchvision).
    """
    batch, _, height, width = images.shape
    draws = torch.randint(2 * padding + 1, (2, batch, 1), generator=generator)
    offsets = onto(draws, images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)  # (batch, height)
    columns = offsets[1] + torch.arange(width, device=images.device)
    if fill == "black":
        images = F.pad(images, (padding,) * 4)
    else:
        rows = _reflected(height, padding, images.device)[rows]
        columns = _reflected(width, padding, images.device)[columns]
    every = torch.arange(batch, device=images.device)[:, None, None]
    # indexing on both sides of ":" moves the channel to the end
    return images[every, :, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


@cache
def _reflected(size: int, padding: int, device: torch.device) -> Int64[Tensor, "padded"]:
    """Return which of ``size`` pixels is shown at each place of a row padded by reflection."""
    return torch.from_numpy(np.pad(np.arange(size), padding, mode="reflect")).to(device)


def alternating_flips(
    order: Int64[Tensor, "place"], epoch: int, generator: Generator, device: torch.device
) -> Bool[Tensor, "place"]:
    """Return which images are flipped in an epoch, so that each is flipped in every other epoch.

    Each image draws once per training whether these are the even or the odd epochs. Source: Jordan,
    "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024 (arXiv 2404.00498), "Alternating flip".

    Args:
        order: the indices of all images in the order of the epoch, on the CPU.
        epoch: the epoch, counted from 0.
        generator: a generator on the CPU, in the same state for every epoch.
        device: where the result is needed.
    """
    in_even = torch.rand(len(order), generator=generator) < 0.5
    return onto((in_even ^ bool(epoch % 2))[order], device)


def _drawn_flips(
    count: int, settings: Augment, generator: Generator, device: torch.device
) -> Bool[Tensor, "batch"]:
    if settings.flip == "alternate":
        raise ValueError("flip = 'alternate' needs the flips of the epoch, got none")
    return onto(torch.rand(count, generator=generator) < 0.5, device)


def cutout(
    images: UInt8[Tensor, "batch channel height width"], side: int, generator: Generator
) -> UInt8[Tensor, "batch channel height width"]:
    """Blacken a square of each image, ``side`` pixels high and wide.

    Its centre is uniform over all pixels, so the square may be clipped at a border. The centre is
    the pixel at index ``side // 2`` of the square. Source: DeVries and Taylor, 2017 (arXiv
    1708.04552), section 3.3, and the official code.
    """
    batch, _, *sizes = images.shape
    centres = torch.stack([torch.randint(n, (batch,), generator=generator) for n in sizes])
    row, column = onto(centres, images.device)
    rows = _covered(sizes[0], side, images.device)[row]  # (batch, height)
    columns = _covered(sizes[1], side, images.device)[column]
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


@cache
def _covered(size: int, side: int, device: torch.device) -> Bool[Tensor, "centre pixel"]:
    """Return for each centre which of ``size`` pixels in a row a cutout covers."""
    first = torch.arange(size)[:, None] - side // 2
    pixels = torch.arange(size)
    return ((first <= pixels) & (pixels < first + side)).to(device)


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
