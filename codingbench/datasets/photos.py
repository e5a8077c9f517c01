"""Read photographs of any size and resize them to one size, without torch.

Files may come from untrusted sources: only JPEG and PNG are read, and sizes are checked before
anything is decoded. Every error names the file.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
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

GREY_MODES: Final = frozenset({"1", "L", "LA"})

Box = tuple[int, int, int, int]
"""Top, left, height and width, in pixels."""

Photo = UInt8[np.ndarray, "channel height width"]


@dataclass(frozen=True)
class Form:
    """The channels and size of decoded images.

    ``is_native`` images keep the size of their files, which must all have it; others are scaled.
    """

    channels: int
    height: int
    width: int
    is_native: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width


def read_photo(path: Path, size: int, part: Callable[[int, int], Box] | None = None) -> Photo:
    """Read a file as RGB with ``size`` x ``size`` pixels; see :func:`read_image`."""
    return read_image(path, str(path), Form(3, size, size, is_native=False), part)


def read_image(
    image: Path | bytes,
    name: str,
    form: Form,
    part: Callable[[int, int], Box] | None = None,
) -> Photo:
    """Read an image in the given form; colour modes are converted.

    Interpolation is Pillow's bilinear filter, which averages when it shrinks. Pixels equal those of
    torchvision's Resize, CenterCrop and RandomResizedCrop.

    Args:
        image: path or content of a JPEG or PNG file.
        name: what the image is called in messages.
        form: channels, height and width of the result. A form that is not native is square.
        part: function from the image's (height, width) to the part that is cut out and resized.
            None: the whole image if the form is native. Otherwise the shorter side is resized to
            round(size * 256 / 224) and the middle cut out, as ImageNet is evaluated.

    Raises:
        DatasetError: the file cannot be read, is not a complete JPEG or PNG, is too large, or does
            not have the form.
    """
    try:
        # Pillow warns of many pixels, broken EXIF data and palettes with transparency
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            length = len(image) if isinstance(image, bytes) else image.stat().st_size
            if length > MOST_BYTES:
                raise _Refused(f"{length:,} bytes, expected at most {MOST_BYTES:,}")
            with Image.open(_opened(image), formats=FORMATS) as found:
                _check(found, form)
                pixels = found.convert("RGB" if form.channels == 3 else "L")
            cut = _cut(pixels, form, part)
    except _Refused as error:
        raise DatasetError(f"{name} cannot be used: {error}") from None
    except Exception as error:  # Pillow does not document which types
        raise DatasetError(f"{name} is broken: {one_line(error)}") from error
    return np.asarray(cut).reshape(form.height, form.width, form.channels).transpose(2, 0, 1)


def look_at(image: Path | bytes) -> tuple[int, int, bool] | None:
    """Return height, width, and whether an image is grey, without decoding it; None if broken."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(_opened(image), formats=FORMATS) as found:
                return found.height, found.width, found.mode in GREY_MODES
    except Exception:  # Pillow does not document which types; decoding tells
        return None


def form_of(looks: set[tuple[int, int, bool]], most: int) -> Form:
    """Return the form of images that were looked at.

    They keep their size if all have the same one, of at most ``most`` pixels a side. Otherwise they
    are scaled to ``most`` x ``most``. They are grey if all of them are.
    """
    sizes = {(height, width) for height, width, _ in looks}
    channels = 1 if looks and all(is_grey for *_, is_grey in looks) else 3
    if len(sizes) == 1 and max(*sizes.copy().pop()) <= most:
        return Form(channels, *sizes.pop(), is_native=True)
    return Form(channels, most, most, is_native=False)


def _opened(image: Path | bytes) -> Path | io.BytesIO:
    return io.BytesIO(image) if isinstance(image, bytes) else image


def _cut(pixels: Image.Image, form: Form, part: Callable[[int, int], Box] | None) -> Image.Image:
    if part is not None:
        top, left, height, width = part(pixels.height, pixels.width)
        box = (left, top, left + width, top + height)
        return pixels.crop(box).resize((form.width, form.height), Image.Resampling.BILINEAR)
    return pixels if form.is_native else _middle(pixels, form.height)


class _Refused(Exception):
    """The image is intact, but too large or of another colour mode."""


def shorter_side(size: int) -> int:
    """Return the length of the shorter side before the middle is cut out."""
    return round(size * 256 / 224)


def _check(image: Image.Image, form: Form) -> None:
    """Check the size and colour mode, before anything is decoded."""
    width, height = image.size
    found = f"{width}x{height} pixels"
    if width * height > MOST_PIXELS:
        raise _Refused(f"{found}, expected at most {MOST_PIXELS:,} in all")
    size = form.height
    if form.is_native and (image.height, image.width) != (form.height, form.width):
        raise _Refused(f"{found}, expected {form.width}x{form.height} as in the other images")
    if form.channels == 1 and image.mode not in GREY_MODES:
        raise _Refused(f"colour mode {image.mode}, expected grey as in the other images")
    if not form.is_native and shorter_side(size) ** 2 * max(image.size) > (
        MOST_PIXELS * min(image.size)
    ):
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
