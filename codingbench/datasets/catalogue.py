"""The catalogue of image data sets: what is known of each before its files are opened.

Installed distributions can publish further data sets.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from codingbench.datasets.description import (
    DEFAULT_SIZE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    DatasetInfo,
)
from codingbench.datasets.folders import class_folders
from codingbench.datasets.own import FORMS, found_path, is_own_arrays, own_arrays
from codingbench.errors import SpecError, unknown
from codingbench.plugins.entry_points import publication, published
from codingbench.plugins.specs import format_spec, parse_spec

DEFAULT_DATASET: Final = "fashion_mini"
"""The data set inside the package."""

SPLITS: Final = ("train", "test")

PHOTO_FOLDER: Final = "folder:"
"""Start of the name of any folder with class folders: ``folder:PATH``."""

_SIZES: Final = range(8, 2049)  # of photographs, in pixels

GROUP: Final = "codingbench.datasets"
"""Entry-point group of the data sets that other distributions publish."""


@dataclass(frozen=True)
class PublishedDataset:
    """A data set that a distribution publishes by an entry point in ``codingbench.datasets``.

    The name of the entry point must be ``info.name``.

    Args:
        info: description of the data set. All images have one size, and one channel (grey) or
            three (red, green, blue).
        folder: folder with the Parquet shards ``{train,test}-*-of-*.parquet`` (Hugging Face
            layout), or with ``train.parquet`` and ``test.parquet``.

    Raises:
        ValueError: the description is not valid.
    """

    info: DatasetInfo
    folder: Path

    def __post_init__(self) -> None:
        info = self.info
        if info.is_photos:
            raise ValueError(
                f"{info.name}: is_photos must be false, because shards hold images of one size"
            )
        if info.channels not in (1, 3):
            raise ValueError(f"{info.name}: channels must be 1 or 3, got {info.channels}")
        scales = {"mean": info.mean, "std": info.std}
        for name, values in scales.items():
            if not isinstance(values, tuple) or len(values) != info.channels:
                raise ValueError(f"{info.name}: {name} must be a tuple with one number per channel")
        if not all(std > 0 for std in info.std):
            raise ValueError(f"{info.name}: std must be positive, got {info.std}")
        sizes = info.num_classes, *info.shape, info.train_size, info.test_size
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(f"{info.name}: classes and sizes must be at least 1, got {sizes}")


@dataclass(frozen=True)
class Archive:
    """The files that the class ``class_name`` of torchvision downloads, as they are on disk."""

    class_name: str
    folder: str  # where the extracted files are
    members: Mapping[str, tuple[str, ...]]
    tar: str | None = None
    system_folder: Path | None = None  # where a Linux distribution installs the files
    mirrors: tuple[str, ...] = ()  # further https addresses of the folder of the files


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
        # the authors' repository; torchvision's address is not https
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
    """Return the data sets that codingbench itself knows, by name."""
    greyscale: Any = {"num_classes": 10, "channels": 1, "height": 28, "width": 28}
    colour: Any = {"channels": 3, "height": 32, "width": 32}
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
            balanced_train=54_210, balanced_test=8_920,  # the digit 5 has 5,421 and 892 images
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
        DatasetInfo(
            "imagenet", "ImageNet (ILSVRC 2012)", num_classes=1000, channels=3,
            height=DEFAULT_SIZE, width=DEFAULT_SIZE, mean=IMAGENET_MEAN, std=IMAGENET_STD,
            train_size=1_281_167, test_size=50_000,
            licence="research only", about="photographs, decoded while training; [size=224]",
            is_photos=True, address="imagenet",
            balanced_train=732_000,  # the smallest class has 732 images
        ),
    )  # fmt: skip
    return {info.name: info for info in infos}


MNIST_COUNTS: Final = {
    "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
}
"""Images of each digit; the other archives have the same number of images of every class."""


def known_counts(info: DatasetInfo, split: str) -> tuple[int, ...]:
    """Return the number of images of each class of a known data set; empty for others."""
    if info.name not in ARCHIVES:
        return ()
    size = info.train_size if split == "train" else info.test_size
    equal = (size // info.num_classes,) * info.num_classes
    return MNIST_COUNTS[split] if info.name == "mnist" else equal


def dataset_names() -> list[str]:
    """Return the names of all data sets, published ones last, without importing any code."""
    return list(dict.fromkeys([*catalogue(), *(found.name for found in published(GROUP))]))


def get_info(name: str, data_dir: Path | None = None) -> DatasetInfo:
    """Return the description of a data set.

    For photographs the name can set the size in pixels, as in ``imagenet[size=160]``. The name
    ``folder:PATH`` becomes ``folder:BASENAME``, which is found again in ``data_dir``; likewise the
    other forms of :mod:`codingbench.datasets.own`.

    Raises:
        SpecError: no data set or several have that name, the code that publishes it cannot be
            imported, or the size is not allowed.
        DatasetError: the file or folder does not exist, or does not hold images and labels.
    """
    if found := published_dataset(name):
        return found.info
    plain = name.strip().partition("[")[0].strip()
    if plain.startswith(PHOTO_FOLDER):
        return _sized(_folder_info(plain, data_dir), name)
    if is_own_arrays(plain):
        return _sized(own_arrays(plain, data_dir).info, name)
    if plain not in catalogue():
        raise SpecError(unknown("data set", name, [*dataset_names(), *FORMS]))
    return _sized(catalogue()[plain], name)


def photo_root(name: str, data_dir: Path | None) -> Path:
    """Return the folder of ``folder:PATH``: inside ``data_dir``, ``data_dir`` itself, or elsewhere.

    Raises:
        SpecError: the path is empty, or its last part cannot be used as a name in tables.
        DatasetError: there is no such folder.
    """
    text = name.removeprefix(PHOTO_FOLDER).strip()
    if not text:
        raise SpecError(f"{name!r} has no path, expected {PHOTO_FOLDER}PATH")
    return found_path(text, name, data_dir, Path.is_dir, "folder")


def _folder_info(name: str, data_dir: Path | None) -> DatasetInfo:
    """Describe a folder of class folders, counting its files."""
    root = photo_root(name, data_dir)
    folders = class_folders(root)
    train_counts, test_counts = (folders.class_counts(split) for split in SPLITS)
    from codingbench.datasets.folder_form import folder_form

    form, (mean, std) = folder_form(folders)
    return DatasetInfo(
        f"{PHOTO_FOLDER}{root.name}", root.name, len(folders.classes), *form.shape, mean, std,
        train_size=sum(train_counts), test_size=sum(test_counts),
        licence="unstated", about="photographs in folders of their classes",
        is_photos=True, is_native=form.is_native, address=f"{PHOTO_FOLDER}{root}",
        balanced_train=min(train_counts) * len(train_counts),
        # a class without test images makes them unequal from the first image on
        balanced_test=min(test_counts) * len(test_counts) * (len(test_counts) == len(train_counts)),
    )  # fmt: skip


def _sized(info: DatasetInfo, text: str) -> DatasetInfo:
    """Return the description with the size that ``text`` sets in brackets, if any."""
    params = dict(parse_spec(text).params)
    for param in params:
        if not info.is_photos:
            raise SpecError(f"data set {info.name!r} has no parameters, got {text!r}")
        if param != "size":
            raise SpecError(unknown(f"parameter of {info.name}:", param, ["size"]))
    size = params.get("size", str(info.height))
    if not (size.isascii() and size.isdigit() and len(size) < 9 and int(size) in _SIZES):
        bounds = f"{_SIZES.start} to {_SIZES.stop - 1}"
        raise SpecError(f"{info.name}: size must be a whole number from {bounds}, got {size!r}")
    if not params or int(size) == info.height == info.width:
        return info
    name, address = (format_spec(n, {"size": int(size)}) for n in (info.name, info.address))
    info = replace(info, name=name, address=address, height=int(size), width=int(size))
    if info.channels == 3:  # as photographs of other sizes are standardised
        return replace(info, is_native=False, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return replace(info, is_native=False)


def published_dataset(name: str) -> PublishedDataset | None:
    """Return the data set that an installed distribution publishes under the name, or None.

    Raises:
        SpecError: several data sets have the name, or the code that publishes it is broken.
    """
    source = publication("data set", GROUP, name, name in catalogue())
    if source is None:
        return None
    found, owner = source.load("data set"), source.distribution
    if not isinstance(found, PublishedDataset):
        kind = type(found).__name__
        raise SpecError(f"data set {name!r} of {owner} must be a PublishedDataset, got a {kind}")
    if found.info.name != name:
        raise SpecError(
            f"data set {name!r} of {owner} has the name {found.info.name!r}, expected {name!r}"
        )
    return found
