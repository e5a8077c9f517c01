"""Read photographs of any size and resize them to one size, without torch.

Files may come from untrusted sources: only JPEG and PNG are read, and sizes are checked before
anything is decoded. Every error names the file.
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
MOST_BYTES: Final = 2**26  # size limit of a file
MOST_PIXELS: Final = 89_478_485
"""Largest number of pixels of an image, before and after resizing; Pillow warns of more."""

_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
"""Colour modes with 8 bits per channel. For others, Pillow would clip values above 255."""

Box = tuple[int, int, int, int]
"""Top, left, height and width, in pixels."""

Photo = UInt8[np.ndarray, "3 size size"]


def read_photo(path: Path, size: int, part: Callable[[int, int], Box] | None = None) -> Photo:
    """Read an image as RGB with ``size`` x ``size`` pixels; other colour modes are converted.

    Interpolation is Pillow's bilinear filter, which averages when it shrinks. Pixels equal those of
    torchvision's Resize, CenterCrop and RandomResizedCrop.

    Args:
        path: path of a JPEG or PNG file.
        size: height and width of the result, in pixels.
        part: function from the image's (height, width) to the part that is cut out and resized.
            None: the shorter side is resized to round(size * 256 / 224) and the middle cut out, as
            ImageNet is evaluated.

    Raises:
        DatasetError: the file cannot be read, is not a complete JPEG or PNG, or is too large.
    """
    try:
        # Pillow warns of many pixels, broken EXIF data and palettes with transparency
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
    except Exception as error:  # Pillow does not document which types
        raise DatasetError(f"{path} is broken: {one_line(error)}") from error
    return np.asarray(cut).transpose(2, 0, 1)


class _Refused(Exception):
    """The image is intact, but too large or of another colour mode."""


def shorter_side(size: int) -> int:
    """Return the length of the shorter side before the middle is cut out."""
    return round(size * 256 / 224)


def _check(image: Image.Image, size: int) -> None:
    """Check the size and colour mode, before anything is decoded."""
    width, height = image.size
    found = f"{width}x{height} pixels"
    if width * height > MOST_PIXELS:
        raise _Refused(f"{found}, expected at most {MOST_PIXELS:,} in all")
    if shorter_side(size) ** 2 * max(image.size) > MOST_PIXELS * min(image.size):
        raise _Refused(f"{found} would be too long with a shorter side of {shorter_side(size)}")
    if image.mode not in _MODES:
        raise _Refused(f"colour mode {image.mode}, expected one with 8 bits per channel")


def _middle(image: Image.Image, size: int) -> Image.Image:
    short, long = shorter_side(size), max(image.size)
    sides = [short, int(short * long / min(image.size))]
    width, height = sides if image.width <= image.height else reversed(sides)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return resized.crop((left, top, left + size, top + size))
