"""Augmentation image by image, as torchvision does it: RandAugment, AutoAugment, random erasing.

torchvision is imported when the first such image is asked for; most recipes do without it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor

from codingbench.recipes.recipe import AutoAugment, Erasing, RandAugment

Transform = Callable[[Tensor], Tensor]


@contextmanager
def torch_draws_from(generator: Generator) -> Iterator[None]:
    """Inside, what takes no generator draws from a stream that one draw of ``generator`` begins.

    It is torch's global one on the CPU; outside, that is as if nothing had been drawn.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would begin the streams of every GPU anew as well
        torch.default_generator.manual_seed(seed)
        yield


def apply_policy(
    images: UInt8[Tensor, "batch channel height width"],
    settings: RandAugment | AutoAugment,
    generator: Generator,
) -> UInt8[Tensor, "batch channel height width"]:
    """Every image by itself; one of a single channel has no colour to change, and keeps it."""
    transform = _policy(settings)
    with torch_draws_from(generator):
        return torch.stack([transform(image) for image in images])


def erase_(
    images: Float[Tensor, "batch channel height width"], settings: Erasing, generator: Generator
) -> None:
    """In place; a box that does not fit in ten tries is left out."""
    transform = _erasing(settings)
    with torch_draws_from(generator):
        for image in images:
            transform(image)


@cache
def _policy(settings: RandAugment | AutoAugment) -> Transform:
    from torchvision.transforms import v2

    border = {
        "interpolation": v2.InterpolationMode(settings.interpolation),
        "fill": 255 * settings.fill,
    }
    transform: Transform
    if isinstance(settings, AutoAugment):
        transform = v2.AutoAugment(v2.AutoAugmentPolicy(settings.policy), **border)
    else:
        one = v2.RandAugment(1, settings.magnitude, settings.magnitude_bins, **border)
        transform = v2.Compose([v2.RandomApply([one], settings.probability)] * settings.operations)
    return transform


@cache
def _erasing(settings: Erasing) -> Transform:
    from torchvision.transforms import v2

    transform: Transform = v2.RandomErasing(
        settings.probability, settings.scale, settings.ratio, settings.fill, inplace=True
    )
    return transform
