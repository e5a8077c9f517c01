"""The size and channels that the photographs of a folder get, read from the files."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from codingbench.datasets.arrays import histogram, moments
from codingbench.datasets.description import DEFAULT_SIZE, IMAGENET_MEAN, IMAGENET_STD
from codingbench.datasets.folders import ClassFolders, Files, path_of
from codingbench.datasets.photos import Form, form_of, look_at, read_image
from codingbench.errors import DatasetError

LOOKED_AT: Final = 10_000
"""Largest number of training images whose headers are read. An image that differs from them is
refused when it is decoded."""

MEASURED: Final = 2_000
"""Largest number of training images from which mean and standard deviation are measured."""

Scale = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel."""


def folder_form(folders: ClassFolders) -> tuple[Form, Scale]:
    """Return the form of a folder's images, with the mean and std to standardise them.

    Images that all have one size of at most ``DEFAULT_SIZE`` pixels a side keep it; others are
    scaled to that size. Colour images that are scaled have ImageNet's mean and std. Those of others
    are measured on evenly spaced training images.

    Raises:
        DatasetError: a folder cannot be read, or an image that is measured is broken.
    """
    files = folders.files("train")
    looked = [path_of(files.folder, name) for name in _spaced(files, LOOKED_AT)]
    try:
        versions = tuple((path, path.stat().st_mtime_ns) for path in looked)
    except OSError as error:
        raise DatasetError(f"{files.folder} cannot be read: {error.strerror}") from error
    return _form(versions, tuple(_spaced(files, MEASURED)), files.folder)


@lru_cache(maxsize=8)
def _form(
    versions: tuple[tuple[Path, int], ...], measured: tuple[bytes, ...], folder: Path
) -> tuple[Form, Scale]:
    form = form_of({look for path, _ in versions if (look := look_at(path))}, DEFAULT_SIZE)
    if form.channels == 3 and not form.is_native:
        return form, (IMAGENET_MEAN, IMAGENET_STD)
    counts = np.zeros((form.channels, 256), np.int64)
    for name in measured:
        path = path_of(folder, name)
        if look_at(path):  # a broken file is named when the data set is loaded
            counts += histogram(read_image(path, str(path), form)[np.newaxis])
    return form, moments(counts, os.fspath(folder))


def _spaced(files: Files, most: int) -> list[bytes]:
    """Return the names of at most ``most`` evenly spaced images."""
    count = len(files.names)
    chosen = np.linspace(0, count - 1, min(count, most)).astype(int)
    names: list[bytes] = files.names[chosen].tolist()
    return names
