"""Which image data sets there are, and what is known of each before its files are opened.

Those in the catalogue are codingbench's own; installed distributions may publish others.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from codingbench.entry_points import publication, published
from codingbench.errors import SpecError, unknown

DEFAULT_DATASET: Final = "fashion_mini"
"""The one inside the package."""

SPLITS: Final = ("train", "test")

GROUP: Final = "codingbench.datasets"
"""The group of the entry points of published ones."""


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before its files are opened.

    ``mean`` and ``std`` are per channel, of the training images on a [0, 1] scale.
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

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class PublishedDataset:
    """What an entry point of the group ``codingbench.datasets`` leads to; its name is the info's.

    Args:
        info: of images of one size; one channel is grey, three are red, green and blue.
        folder: with the Parquet shards ``{train,test}-*-of-*.parquet`` (Hugging Face layout), or
            ``train.parquet`` and ``test.parquet``.

    Raises:
        ValueError: the info is of no data set that could be read.
    """

    info: DatasetInfo
    folder: Path

    def __post_init__(self) -> None:
        info = self.info
        if info.channels not in (1, 3):
            raise ValueError(f"{info.name}: channels must be 1 or 3, got {info.channels}")
        scales = {"mean": info.mean, "std": info.std}
        for name, values in scales.items():
            if not isinstance(values, tuple) or len(values) != info.channels:
                raise ValueError(f"{info.name}: {name} must be a tuple, a number per channel")
        if not all(std > 0 for std in info.std):
            raise ValueError(f"{info.name}: std must be positive, got {info.std}")
        sizes = info.num_classes, *info.shape, info.train_size, info.test_size
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(f"{info.name}: classes and sizes must be at least 1, got {sizes}")


@dataclass(frozen=True)
class Archive:
    """The files that torchvision's class ``class_name`` downloads, as they lie on disk."""

    class_name: str
    folder: str  # of the loose files
    members: Mapping[str, tuple[str, ...]]
    tar: str | None = None
    system_folder: Path | None = None  # where a Linux distribution puts the loose files
    mirrors: tuple[str, ...] = ()  # https addresses of the files' folder that torchvision lacks


_IDX_MEMBERS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
ARCHIVES: Final = {
    "fashion_mnist": Archive(
        "FashionMNIST",
        "FashionMNIST/raw",
        _IDX_MEMBERS,
        system_folder=Path("/usr/share/datasets/fashion-mnist"),  # Debian: dataset-fashion-mnist
        # its authors' repository; torchvision's own address has no https
        mirrors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
    ),
    "mnist": Archive("MNIST", "MNIST/raw", _IDX_MEMBERS),
    "cifar10": Archive(
        "CIFAR10",
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        tar="cifar-10-python.tar.gz",
    ),
    "cifar100": Archive(
        "CIFAR100",
        "cifar-100-python",
        {"train": ("train",), "test": ("test",)},
        tar="cifar-100-python.tar.gz",
    ),
}


@functools.cache
def catalogue() -> dict[str, DatasetInfo]:
    """Every data set by name that codingbench knows by itself."""
    greyscale = {"num_classes": 10, "channels": 1, "height": 28, "width": 28}
    colour = {"channels": 3, "height": 32, "width": 32}
    infos = (
        DatasetInfo(
            "fashion_mini", "Fashion-MNIST, small", **greyscale,
            mean=(0.2877,), std=(0.3534,), train_size=6_000, test_size=1_000,
            licence="MIT", about="600 + 100 clothes a class; part of codingbench",
        ),
        DatasetInfo(
            "fashion_mnist", "Fashion-MNIST", **greyscale,
            mean=(0.2860,), std=(0.3530,), train_size=60_000, test_size=10_000,
            licence="MIT", about="clothes in shades of grey",
        ),
        DatasetInfo(
            "mnist", "MNIST", **greyscale,
            mean=(0.1307,), std=(0.3081,), train_size=60_000, test_size=10_000,
            licence="CC BY-SA 3.0", about="handwritten digits",
        ),
        DatasetInfo(
            "cifar10", "CIFAR-10", num_classes=10, **colour,
            mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010),
            train_size=50_000, test_size=10_000,
            licence="unstated", about="animals and vehicles in colour",
        ),
        DatasetInfo(
            "cifar100", "CIFAR-100", num_classes=100, **colour,
            mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761),
            train_size=50_000, test_size=10_000,
            licence="unstated", about="a hundred kinds of things in colour",
        ),
    )  # fmt: skip
    return {info.name: info for info in infos}


def dataset_names() -> list[str]:
    """All names that can be asked for, published ones last; nothing is imported."""
    return list(dict.fromkeys([*catalogue(), *(found.name for found in published(GROUP))]))


def get_info(name: str) -> DatasetInfo:
    """What is known of the data set of that name.

    Raises:
        SpecError: there is none, or more than one; or the code that publishes it is broken.
    """
    if found := published_dataset(name):
        return found.info
    if name not in catalogue():
        raise SpecError(unknown("data set", name, dataset_names()))
    return catalogue()[name]


def published_dataset(name: str) -> PublishedDataset | None:
    """The data set that an installed distribution publishes under the name; None if none does.

    Raises:
        SpecError: more than one is of the name, or the code that publishes it is broken.
    """
    source = publication("data set", GROUP, name, name in catalogue())
    if source is None:
        return None
    found, owner = source.load("data set"), source.distribution
    if not isinstance(found, PublishedDataset):
        kind = type(found).__name__
        raise SpecError(f"data set {name!r} of {owner} is a {kind}, expected a PublishedDataset")
    if found.info.name != name:
        raise SpecError(f"data set {name!r} of {owner} calls itself {found.info.name!r}")
    return found
