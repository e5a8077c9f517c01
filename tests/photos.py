"""Write small folders of photographs for tests."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

QUICK_CROPS = """
[augment.resized_crop]
scale = [0.08, 1.0]
ratio = [0.75, 1.3333]
"""


def photo(seed: int, size: tuple[int, int] = (20, 16), mode: str = "RGB") -> Image.Image:
    """Return smooth noise, so that neighbouring pixels differ only slightly."""
    draws = np.random.default_rng(seed)
    coarse = draws.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def write_photos(root: Path, classes: str = "abc", train: int = 4, val: int = 2) -> Path:
    """Write photographs of several sizes, alternately JPEG and PNG; class ``a`` is red."""
    seed = 0
    for split, count in (("train", train), ("val", val)):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                form, suffix = (("JPEG", "JPEG"), ("PNG", "png"))[number % 2]
                image = photo(seed, (16 + 3 * number, 20 - number))
                if name == "a":
                    image = Image.merge(
                        "RGB", (Image.new("L", image.size, 200), *image.split()[1:])
                    )
                path = root / split / name / f"{split}_{number}.{suffix}"
                image.save(path, form)
                seed += 1
    return root


def recipe_with_crops(path: Path, **changes: Any) -> Path:
    """Write the recipe ``quick`` with random resized crops added to a file."""
    from codingbench.recipes import FOLDER

    text = (FOLDER / "quick.toml").read_text() + QUICK_CROPS
    for old, new in changes.items():
        text = text.replace(old, new)
    path.write_text(text)
    return path
