"""The images of a training: which are held out for validation, and how batches divide them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from codingbench.datasets.images import ImageSplit
from codingbench.training.meter import TrainingError

AnySplit = TypeVar("AnySplit", bound=ImageSplit)


@dataclass(frozen=True)
class Data:
    """The images of a cell, on its device.

    The validation images were held out of the training images.
    """

    train: ImageSplit
    val: ImageSplit
    test: ImageSplit


def hold_out(split: AnySplit, fraction: float) -> tuple[AnySplit, AnySplit]:
    """Split into training and validation images.

    Together the validation images are ``fraction`` of all images, but at least one. Each class
    gives its share by the method of largest remainders, and gives its last images.

    Raises:
        TrainingError: there are fewer than two images.
    """
    count = len(split.labels)
    if count < 2:
        raise TrainingError(
            f"at least 2 training images are needed, one for validation; got {count}"
        )
    held = held_out_count(count, fraction)
    members = [(split.labels == label).nonzero().flatten() for label in split.labels.unique()]
    shares = _shares(members, held)
    val = torch.cat([m[len(m) - share :] for m, share in zip(members, shares, strict=True)])
    is_kept = torch.ones(count, dtype=torch.bool)
    is_kept[val] = False
    return split.subset(is_kept.nonzero().flatten()), split.subset(val.sort().values)


def held_out_count(count: int, fraction: float) -> int:
    """Return the number of validation images among ``count`` images, at least 2."""
    return min(count - 1, max(1, round(fraction * count)))


def smallest_piece(train_images: int, batch_size: int, micro_batch: int) -> int:
    """Return the least number of images of a forward pass in training.

    >>> smallest_piece(101, batch_size=50, micro_batch=50)
    1
    >>> smallest_piece(100, batch_size=50, micro_batch=20)
    10
    """
    batches = {min(batch_size, train_images), train_images % batch_size} - {0}
    pieces = {
        piece for batch in batches for piece in (min(micro_batch, batch), batch % micro_batch)
    }
    return min(pieces - {0})


def _shares(members: Sequence[Tensor], held: int) -> list[int]:
    """Divide ``held`` places among classes in proportion to their images: largest remainders.

    Among equal remainders, the class whose next image comes last in the split goes first. The last
    training image of a class is taken only where every other class has no more to give.
    """
    count = sum(map(len, members))
    shares = [held * len(images) // count for images in members]

    def priority(label: int) -> tuple[bool, int, int]:
        images, share = members[label], shares[label]
        return len(images) > share + 1, held * len(images) % count, int(images[-1 - share])

    most_urgent = sorted(range(len(members)), key=priority, reverse=True)
    for label in most_urgent[: held - sum(shares)]:
        shares[label] += 1
    return shares
