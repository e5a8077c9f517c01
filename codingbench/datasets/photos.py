"""Photographs from files of any size: opened, checked, brought to one size. Needs no torch.

Files may come from strangers: only JPEG and PNG are read, sizes are bounded before anything is
decoded, and what is wrong with a file is one error that names it.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from codingbench.errors import DatasetError, one_line

FORMATS: Final = ("PNG", "JPEG")
MOST_BYTES: Final = 2**26  # of a file
MOST_PIXELS: Final = 89_478_485
"""Of an image, as it is and when its shorter side is brought to the size asked for; Pillow warns
of more than that."""

_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
"""Colour modes of 8 bits; Pillow cuts off what is above 255 of others."""

Box = tuple[int, int, int, int]
"""Top, left, height, width."""

Photo = UInt8[np.ndarray, "3 size size"]


def read_photo(path: Path, size: int, part: Callable[[int, int], Box] | None = None) -> Photo:
    """The file's image in RGB, ``size`` x ``size``; grey, CMYK and see-through ones converted.

    Args:
        path: of a JPEG or PNG file.
        size: of the image that comes out, in pixels.
        part: from the file's (height, width) to what is cut out and brought to ``size``; None: the
            shorter side is brought to round(size * 256 / 224), and the middle cut out, as ImageNet
            is evaluated. Interpolation is Pillow's bilinear one, which averages what it shrinks:
            the pixels are those of torchvision's Resize, CenterCrop and RandomResizedCrop.

    Raises:
        DatasetError: the file cannot be read, is no whole JPEG or PNG, or too large.
    """
    try:
        # what Pillow warns of: many pixels, broken EXIF, palettes with transparency
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if (length := path.stat().st_size) > MOST_BYTES:
                raise _Refused(f"{length:,} bytes, expected at most {MOST_BYTES:,}")
            with Image.open(path, formats=FORMATS) as image:
                _check(image, size)
                rgb = image.convert("RGB")
            if part is None:
                cut = _middle(rgb, size)
            else:
                top, left, height, width = part(rgb.height, rgb.width)
                cut = rgb.crop((left, top, left + width, top + height))
                cut = cut.resize((size, size), Image.Resampling.BILINEAR)
    except _Refused as error:
        raise DatasetError(f"{path} cannot be used: {error}") from None
    except Exception as error:  # Pillow does not say which kinds
        raise DatasetError(f"{path} is broken: {one_line(error)}") from error
    return np.asarray(cut).transpose(2, 0, 1)


class _Refused(Exception):
    """The image is sound, but not one of ours."""


def shorter_side(size: int) -> int:
    """To which an image's shorter side is brought before the middle is cut out."""
    return round(size * 256 / 224)


def _check(image: Image.Image, size: int) -> None:
    """Before anything is decoded."""
    width, height = image.size
    found = f"{width}x{height} pixels"
    if width * height > MOST_PIXELS:
        raise _Refused(f"{found}, expected at most {MOST_PIXELS:,} in all")
    if shorter_side(size) ** 2 * max(image.size) > MOST_PIXELS * min(image.size):
        raise _Refused(f"{found} would be too long with a shorter side of {shorter_side(size)}")
    if image.mode not in _MODES:
        raise _Refused(f"colour mode {image.mode}, expected 8 bits per channel")


def _middle(image: Image.Image, size: int) -> Image.Image:
    short, long = shorter_side(size), max(image.size)
    sides = [short, int(short * long / min(image.size))]
    width, height = sides if image.width <= image.height else reversed(sides)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return resized.crop((left, top, left + size, top + size))
