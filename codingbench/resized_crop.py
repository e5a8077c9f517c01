"""Random boxes of an image, resized: torchvision's RandomResizedCrop, its draws apart.

Boxes follow from uniform numbers alone, which can be drawn before the size of an image is known,
and used in another thread than the one that drew them.
Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015 (arXiv 1409.4842), section 6.
"""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor

from codingbench.recipes import ResizedCrop

Box = tuple[int, int, int, int]
"""Top, left, height and width."""

TRIES = 10


def draw(count: int, generator: Generator) -> Float[Tensor, "count 22"]:
    """What the boxes of ``count`` images follow from: uniform in [0, 1), as many for each."""
    return torch.rand(count, 2 * TRIES + 2, generator=generator)


def box(uniforms: Float[Tensor, "22"], height: int, width: int, settings: ResizedCrop) -> Box:
    """A box of ``settings.scale`` of the area, of ``settings.ratio`` width / height.

    The first of ten that fits in the image, somewhere in it; if none does, the largest in its
    middle of a ratio that is allowed.
    """
    *sizes, y, x = uniforms.tolist()
    lowest, highest = settings.ratio
    for share, shape in zip(sizes[::2], sizes[1::2], strict=True):
        area = height * width * _between(*settings.scale, share)
        ratio = math.exp(_between(math.log(lowest), math.log(highest), shape))
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = int(y * (height - rows + 1)), int(x * (width - columns + 1))
            return top, left, rows, columns
    rows = min(height, max(1, round(width / lowest)))
    columns = min(width, max(1, round(height * highest)))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def random_resized_crop(
    images: UInt8[Tensor, "batch channel height width"],
    settings: ResizedCrop,
    generator: Generator,
) -> UInt8[Tensor, "batch channel height width"]:
    """A box of each, resized to what the image was: bilinear, anti-aliased where it shrinks."""
    from torchvision.transforms.v2.functional import resized_crop

    height, width = images.shape[2:]
    boxes = [box(row, height, width, settings) for row in draw(len(images), generator)]
    crops = [
        resized_crop(image, *place, [height, width], antialias=True)
        for image, place in zip(images, boxes, strict=True)
    ]
    return torch.stack(crops)


def _between(low: float, high: float, share: float) -> float:
    return low + share * (high - low)
