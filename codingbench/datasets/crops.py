"""Random resized crops: which part of an image, and cut from images in memory.

All random numbers of an epoch are drawn before it begins, a row for each place in its order. Which
part of an image is taken thus depends on the seed, the epoch and that place, never on who decodes
the image, or when.
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
"""Random numbers of an image: area and shape of every try, and the place of the one that fits."""


@dataclass(frozen=True, eq=False)
class Crops:
    """The crops of images one after another; ``draws`` are uniform in [0, 1)."""

    settings: ResizedCrop
    draws: Float32[Tensor, "image numbers"]

    def part(self, start: int, stop: int | None = None) -> "Crops":
        """Those of the images from ``start`` to before ``stop``."""
        return Crops(self.settings, self.draws[start:stop])

    def boxes(self, height: int, width: int) -> Int64[np.ndarray, "image 4"]:
        """Top, left, height and width of each, in images of one size."""
        return boxes(self.draws.numpy(), height, width, self.settings)

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """That of the first image."""
        top, left, h, w = self.boxes(height, width)[0].tolist()
        return top, left, h, w


def draw_crops(settings: ResizedCrop | None, images: int, generator: Generator) -> Crops | None:
    """The crops of so many images; None where the recipe has none."""
    if settings is None:
        return None
    return Crops(settings, torch.rand(images, NUMBERS, generator=generator))


def boxes(
    draws: Float32[np.ndarray, "image numbers"], height: int, width: int, settings: ResizedCrop
) -> Int64[np.ndarray, "image 4"]:
    """Top, left, height and width of a part of a ``height`` x ``width`` image, one per row.

        w = round(sqrt(area * share * shape)),   h = round(sqrt(area * share / shape))

    of the first of ten tries that fits; if none does, the largest centred part whose shape is
    allowed. As in torchvision's RandomResizedCrop (``get_params``), with other random numbers.
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
    """The largest part in the middle whose width / height is allowed."""
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
    """Each image's part, brought to the size of the whole by bilinear interpolation.

    A part is never larger than the whole, so nothing is averaged. Pixels outside the part play no
    role: places beyond its outermost pixels' centres take their values, as if it were cut first.
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
    """Where the ``size`` new pixels' centres lie in a part of so many old ones."""
    centres = (torch.arange(size, device=part.device) + 0.5) * part / size - 0.5
    return torch.minimum(centres.clamp(min=0), part - 1)
