"""Augmentation of single images by torchvision: RandAugment, AutoAugment, random erasing.

torchvision is imported when it is first used, because most recipes do not need it.
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
    """Seed torch's global CPU generator with one draw of ``generator`` inside the context.

    This serves functions that take no generator. On exit the global generator gets its former
    state back.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reseed the generators of all GPUs
        torch.default_generator.manual_seed(seed)
        yield


def apply_policy(
    images: UInt8[Tensor, "batch channel height width"],
    settings: RandAugment | AutoAugment,
    generator: Generator,
) -> UInt8[Tensor, "batch channel height width"]:
    """Transform every image by itself; colour operations leave images of one channel unchanged."""
    transform = _policy(settings)
    with torch_draws_from(generator):
        return torch.stack([transform(image) for image in images])


def erase_(
    images: Float[Tensor, "batch channel height width"], settings: Erasing, generator: Generator
) -> None:
    """Erase a random box of each image in place, or none if ten random boxes do not fit."""
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
