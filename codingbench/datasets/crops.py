"""Random resized crops: choose a part of each image, and cut it from images in memory.

All random numbers of an epoch are drawn before it begins, one row for each position in its order.
The part of an image therefore depends only on the seed, the epoch and the position, not on which
process decodes the image or when.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Generator, Tensor
from torch.nn import functional as F

from codingbench.datasets.pixels import onto
from codingbench.recipes.recipe import ResizedCrop

TRIES: Final = 10
NUMBERS: Final = 2 * TRIES + 2
"""Random numbers per image: area and shape of every try, and the position of the one that fits."""


@dataclass(frozen=True, eq=False)
class Crops:
    """The crops of a sequence of images; ``draws`` are uniform in [0, 1)."""

    settings: ResizedCrop
    draws: Float32[Tensor, "image numbers"]

    def part(self, start: int, stop: int | None = None) -> "Crops":
        """Return the crops of the images ``start`` to ``stop`` - 1."""
        return Crops(self.settings, self.draws[start:stop])

    def boxes(self, height: int, width: int) -> Int64[np.ndarray, "image 4"]:
        """Return top, left, height and width of each crop, in pixels, for images of one size."""
        return boxes(self.draws.numpy(), height, width, self.settings)

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return top, left, height and width of the first crop, in pixels."""
        top, left, h, w = self.boxes(height, width)[0].tolist()
        return top, left, h, w


def draw_crops(settings: ResizedCrop | None, images: int, generator: Generator) -> Crops | None:
    """Draw crops for a number of images, or return None if the recipe has no crops."""
    if settings is None:
        return None
    return Crops(settings, torch.rand(images, NUMBERS, generator=generator))


def boxes(
    draws: Float32[np.ndarray, "image numbers"], height: int, width: int, settings: ResizedCrop
) -> Int64[np.ndarray, "image 4"]:
    """Return top, left, height and width of one part of a ``height`` x ``width`` image per row.

        w = round(sqrt(area * share * shape)),   h = round(sqrt(area * share / shape))

    This is the first of ten tries that fits into the image. If none fits, it is the largest
    centred part with an allowed shape. Same algorithm as torchvision's RandomResizedCrop
    (``get_params``), with other random numbers.
    """
    u = draws.astype(np.float64)
    shares = settings.scale[0] + (settings.scale[1] - settings.scale[0]) * u[:, :TRIES]
    low, high = (math.log(ratio) for ratio in settings.ratio)
    shapes = np.exp(low + (high - low) * u[:, TRIES : 2 * TRIES])
    widths = np.rint(np.sqrt(height * width * shares * shapes)).astype(np.int64)
    heights = np.rint(np.sqrt(height * width * shares / shapes)).astype(np.int64)
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    every, first = np.arange(len(u)), fits.argmax(1)
    h, w = heights[every, first], widths[every, first]
    top = (u[:, -2] * (height - h + 1)).astype(np.int64)
    left = (u[:, -1] * (width - w + 1)).astype(np.int64)
    found = np.stack([top, left, h, w], axis=1)
    is_found = fits.any(axis=1, keepdims=True)
    return np.where(is_found, found, _central(height, width, settings))


def _central(height: int, width: int, settings: ResizedCrop) -> Int64[np.ndarray, "4"]:
    """Return the largest centred part whose width / height is allowed."""
    lowest, highest = settings.ratio
    h, w = height, width
    if width / height < lowest:
        h = round(width / lowest)
    elif width / height > highest:
        w = round(height * highest)
    return np.array([(height - h) // 2, (width - w) // 2, h, w])


def crop_batch(
    images: UInt8[Tensor, "batch channel height width"], crops: Crops
) -> UInt8[Tensor, "batch channel height width"]:
    """Cut a part out of each image and resize it to the image's size, bilinearly.

    A part is never larger than the image, so nothing is averaged. Pixels outside the part have no
    influence: beyond the centres of its outermost pixels, their values are repeated.
    """
    height, width = images.shape[-2:]
    parts = onto(torch.from_numpy(crops.boxes(height, width)).float(), images.device)
    top, left, h, w = parts.T[:, :, None]
    rows = top + _within(h, height)  # (batch, height), in pixels of the whole image
    columns = left + _within(w, width)
    x = (2 * columns + 1) / width - 1  # -1 and 1 are the outer edges of the outermost pixels
    y = (2 * rows + 1) / height - 1
    grid = torch.stack(
        torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1
    )  # (batch, height, width, x|y)
    sampled = F.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled.round_().clamp_(0, 255).to(torch.uint8)


def _within(part: Float[Tensor, "batch 1"], size: int) -> Float[Tensor, "batch size"]:
    """Return the positions of ``size`` new pixel centres, in old pixels, within a part."""
    centres = (torch.arange(size, device=part.device) + 0.5) * part / size - 0.5
    return torch.minimum(centres.clamp(min=0), part - 1)
