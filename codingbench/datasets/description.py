"""The description of a data set: its name, sizes, classes and statistics."""

from dataclasses import dataclass
from typing import Final

DEFAULT_SIZE: Final = 224
"""Height and width that photographs are scaled to."""

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

MOST_HELD_BYTES: Final = 2**30
"""Largest size of a split of photographs that is held in memory; others stay in their files."""


@dataclass(frozen=True)
class DatasetInfo:
    """Description of a data set.

    ``height`` and ``width`` are in pixels. ``mean`` and ``std`` are those of each channel over the
    pixels of the training images, on a [0, 1] scale.
    """

    name: str
    title: str
    num_classes: int
    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_size: int
    test_size: int
    licence: str
    about: str
    is_photos: bool = False
    """True for images of any size in class folders, which are resized when decoded."""
    is_native: bool = False
    """True for photographs that keep the size of their files, which all have it."""
    address: str = ""
    """The name that finds the files of photographs on this machine; ``name`` has no path."""
    balanced_train: int | None = None
    """Training images up to which the classes have equal counts, give or take one; None: all."""
    balanced_test: int | None = None
    """The same of test images."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.height, self.width

    def is_streamed(self, samples: int, crops: bool) -> bool:
        """Return whether the images stay in their files instead of being held in memory.

        Args:
            samples: number of images.
            crops: whether every epoch cuts new parts out of the files.
        """
        size = samples * self.channels * self.height * self.width
        return self.is_photos and (crops or size > MOST_HELD_BYTES)
