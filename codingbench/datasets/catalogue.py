"""Which image data sets there are, and what is known of each before its files are opened.

Those in the catalogue are codingbench's own; installed distributions may publish others.
"""

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from codingbench.datasets.folders import class_folders
from codingbench.errors import DatasetError, SpecError, unknown
from codingbench.plugins.entry_points import publication, published
from codingbench.plugins.specs import format_spec, parse_spec

DEFAULT_DATASET: Final = "fashion_mini"
"""The one inside the package."""

SPLITS: Final = ("train", "test")

PHOTO_FOLDER: Final = "folder:"
"""What the name of any folder of class folders begins with."""

DEFAULT_SIZE: Final = 224
_SIZES: Final = range(8, 2049)  # of photographs, in pixels

MOST_HELD_BYTES: Final = 2**30
"""Of the pixels of a split of photographs; a larger one stays in its files."""

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
    is_photos: bool = False
    """Of files of any size in folders of their classes, brought to one size when decoded."""
    address: str = ""
    """How a data set of photographs is asked for here; ``name`` holds no path."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.channels, self.height, self.width

    def is_streamed(self, samples: int, crops: bool) -> bool:
        """Whether so many images stay in their files, or are decoded once and held in memory.

        ``crops``: parts of them are cut out anew in every epoch, from the files.
        """
        size = samples * self.channels * self.height * self.width
        return self.is_photos and (crops or size > MOST_HELD_BYTES)


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
        if info.is_photos:
            raise ValueError(f"{info.name}: shards hold images of one size, not photographs")
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


_IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
_IMAGENET_STD: Final = (0.229, 0.224, 0.225)


@functools.cache
def catalogue() -> dict[str, DatasetInfo]:
    """Every data set by name that codingbench knows by itself."""
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
            height=DEFAULT_SIZE, width=DEFAULT_SIZE, mean=_IMAGENET_MEAN, std=_IMAGENET_STD,
            train_size=1_281_167, test_size=50_000,
            licence="research only", about="photographs, decoded while training; [size=224]",
            is_photos=True, address="imagenet",
        ),
    )  # fmt: skip
    return {info.name: info for info in infos}


def dataset_names() -> list[str]:
    """All names that can be asked for, published ones last; nothing is imported."""
    return list(dict.fromkeys([*catalogue(), *(found.name for found in published(GROUP))]))


def get_info(name: str, data_dir: Path | None = None) -> DatasetInfo:
    """What is known of the data set of that name.

    Names of photographs may set their size, ``imagenet[size=160]``. That of a folder,
    ``folder:PATH``, becomes ``folder:BASENAME``, which is found again in ``data_dir``.

    Raises:
        SpecError: there is none, or more than one; or the code that publishes it is broken; or it
            has no such size.
        DatasetError: the folder is not there or not as it must be.
    """
    if found := published_dataset(name):
        return found.info
    plain = name.strip().partition("[")[0].strip()
    if plain.startswith(PHOTO_FOLDER):
        return _sized(_folder_info(plain, data_dir), name)
    if plain not in catalogue():
        raise SpecError(unknown("data set", name, [*dataset_names(), f"{PHOTO_FOLDER}PATH"]))
    return _sized(catalogue()[plain], name)


def photo_root(name: str, data_dir: Path | None) -> Path:
    """The folder that ``folder:PATH`` means: in ``data_dir``, that one itself, or any other.

    Raises:
        SpecError: no path is named, or its last part can be no name in a table.
        DatasetError: there is no such folder.
    """
    text = name.removeprefix(PHOTO_FOLDER).strip()
    if not text:
        raise SpecError(f"{name!r} names no folder, expected {PHOTO_FOLDER}PATH")
    path = Path(text).expanduser()
    looked = [path]
    if data_dir:
        itself = data_dir.absolute()
        looked = [data_dir / path, *([itself] if itself.name == text else []), path]
    for place in looked:
        if place.is_dir():
            root = Path(os.path.abspath(place))
            if not root.name.isprintable() or set(root.name) & set("[],|") or not root.name:
                reason = f"its last part must be a printable name without any of [ ] , |: {root}"
                raise SpecError(f"{name!r} cannot stand in a table: {reason}")
            return root
    raise DatasetError(f"there is no folder {' or '.join(map(str, dict.fromkeys(looked)))}")


def _folder_info(name: str, data_dir: Path | None) -> DatasetInfo:
    """Of a folder of class folders, whose files are counted."""
    root = photo_root(name, data_dir)
    folders = class_folders(root)
    return DatasetInfo(
        f"{PHOTO_FOLDER}{root.name}", root.name, len(folders.classes), 3,
        DEFAULT_SIZE, DEFAULT_SIZE, _IMAGENET_MEAN, _IMAGENET_STD,
        train_size=folders.count("train"), test_size=folders.count("test"),
        licence="unstated", about="photographs in folders of their classes",
        is_photos=True, address=f"{PHOTO_FOLDER}{root}",
    )  # fmt: skip


def _sized(info: DatasetInfo, text: str) -> DatasetInfo:
    """With the parameters that stand behind the name."""
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
    if int(size) == info.height:
        return info
    name, address = (format_spec(n, {"size": int(size)}) for n in (info.name, info.address))
    return replace(info, name=name, address=address, height=int(size), width=int(size))


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
