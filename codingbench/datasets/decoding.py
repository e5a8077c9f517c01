"""Decoding of PNG and JPEG files to pixels, in several processes where there are many of them.

A decoder is a process that runs this module. It imports neither torch nor the program that started
it, so it starts quickly, and works from scripts and notebooks alike.
"""

import io
import math
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, repeat
from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from codingbench.errors import one_line
from codingbench.runtime.lifeline import end_with_input

Pixels = UInt8[np.ndarray, "image channel height width"]
Shape = tuple[int, int, int]
"""Channels, height and width of an image."""

LEAST_IMAGES: Final = 2000
"""Images for which another process is started. They take about as long as four of its starts."""

MOST_PROCESSES: Final = 16

_FORMATS: Final = ("PNG", "JPEG")
"""Formats that Pillow may decode. For some of its other formats it runs external programs."""


class UndecodableError(ValueError):
    """An image cannot be decoded; ``index`` is its place among the given ones."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


def decode_images(contents: Sequence[bytes], shape: Shape) -> Pixels:
    """Decode PNG or JPEG files of one shape, in up to one process for each core.

    Raises:
        UndecodableError: a file is not an image of that shape.
    """
    processes = min(_cores(), MOST_PROCESSES, len(contents) // LEAST_IMAGES)
    if processes < 2:
        return _decode_here(contents, shape, 0)
    bounds = [len(contents) * part // processes for part in range(processes + 1)]
    parts = [contents[start:stop] for start, stop in pairwise(bounds)]
    with ThreadPoolExecutor(processes) as pool:
        found = list(pool.map(_decode_elsewhere, parts, repeat(shape)))
    # A decoder that failed does not say why. Decoding the same images here does.
    whole = [
        _decode_here(part, shape, start) if pixels is None else pixels
        for part, pixels, start in zip(parts, found, bounds[:-1], strict=True)
    ]
    return np.concatenate(whole)


def decode_image(content: bytes, shape: Shape) -> UInt8[np.ndarray, "channel height width"]:
    """Decode a PNG or JPEG file of the given shape (channels, height, width).

    Raises:
        ValueError: the file is not a complete image, or has another size or colour mode, which is
            checked before any pixel is decoded.
    """
    channels, height, width = shape
    mode = {1: "L", 3: "RGB"}[channels]
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            # Pillow warns of many pixels before we can compare their number
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            found = image.mode, image.height, image.width
            if found == (mode, height, width):
                pixels = np.asarray(image).reshape(height, width, channels)
                return pixels.transpose(2, 0, 1)
    except UnidentifiedImageError:
        # Pillow's message only has the address of a buffer
        raise ValueError(f"expected a PNG or JPEG file, got {len(content)} other bytes") from None
    except Exception as error:  # Pillow does not document which types
        raise ValueError(one_line(error)) from error
    raise ValueError(
        f"expected {mode} of {width}x{height} pixels, got {found[0]} of {found[2]}x{found[1]}"
    )


def _decode_here(contents: Sequence[bytes], shape: Shape, first: int) -> Pixels:
    """Decode in this process; ``first`` is the index of the first image, for errors."""
    images = np.empty((len(contents), *shape), np.uint8)
    for place, content in enumerate(contents):
        try:
            images[place] = decode_image(content, shape)
        except ValueError as error:
            raise UndecodableError(first + place, str(error)) from error
    return images


def _decode_elsewhere(contents: Sequence[bytes], shape: Shape) -> Pixels | None:
    """Decode in a process of its own; return None if it fails for any reason."""
    # -P: the working directory may hold modules with the names of ours
    command = [sys.executable, "-P", "-m", __name__]
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as decoder:
            assert decoder.stdin and decoder.stdout
            pickle.dump((list(contents), shape), decoder.stdin)
            decoder.stdin.flush()  # but open: a decoder ends when its input does
            found = decoder.stdout.read()
    except OSError:
        return None
    if decoder.returncode or len(found) != len(contents) * math.prod(shape):
        return None
    return np.frombuffer(found, np.uint8).reshape(len(contents), *shape)


def _cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _serve() -> None:
    """Decode the images that come through stdin; write their pixels to stdout."""
    contents, shape = pickle.load(sys.stdin.buffer)
    end_with_input()
    sys.stdout.buffer.write(_decode_here(contents, shape, 0).tobytes())


if __name__ == "__main__":
    _serve()
