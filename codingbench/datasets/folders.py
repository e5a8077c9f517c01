"""Folders of image files, one for each class, like ImageNet's and torchvision's ImageFolder.

    ROOT/train/<class>/*.JPEG        ROOT/val/<class>/*.JPEG, or ROOT/test if there is no val

Class k is the k-th of the sorted names of the folders in ``train``. Images are recognised by their
names (.jpg, .jpeg, .png). Other files, hidden files and deeper folders are ignored.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from codingbench.errors import DatasetError

if TYPE_CHECKING:  # listing the data sets does not need them
    import numpy as np
    from jaxtyping import Int64

SUFFIXES: Final = (".jpg", ".jpeg", ".png")
OTHER_SUFFIXES: Final = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".pbm"),
    *(".pgm", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
"""Endings of image files that are not read."""

TEST_FOLDERS: Final = ("val", "test")
"""Folders of the test images; the first that exists is used. ImageNet's ``test`` has no labels."""

MOST_CLASSES: Final = 2**15  # labels are 16 bits wide in the tables
HASHED_BYTES: Final = 2**30
"""Up to this total size the contents of files are hashed, beyond it only names and sizes."""


@dataclass(frozen=True)
class ClassFolders:
    """The class folders of a data set; their files have not been listed yet."""

    root: Path
    classes: tuple[str, ...]
    test_folder: str

    def folder(self, split: str) -> Path:
        """Return the folder with the class folders of ``train`` or ``test``."""
        return self.root / ("train" if split == "train" else self.test_folder)

    def count(self, split: str) -> int:
        """Return the number of images of ``train`` or ``test``; raises as :meth:`class_counts`."""
        return sum(self.class_counts(split))

    def class_counts(self, split: str) -> list[int]:
        """Return the number of images of each class folder in ``train`` or ``test``.

        Raises:
            DatasetError: a class folder holds no image, or cannot be read.
        """
        return [len(names) for _, names in self._by_class(split)]

    def unused(self) -> Counter[str]:
        """Return how many entries of both splits look like images but are not used, by reason.

        Raises:
            DatasetError: a folder cannot be read.
        """
        found: Counter[str] = Counter()
        for split in ("train", "test"):
            folder = self.folder(split)
            for entry in _entries(folder):
                if entry.name.startswith("."):
                    continue
                found[_reason_outside(entry)] += 1
                if entry.is_dir():
                    found.update(map(_reason_unused, _entries(folder / entry.name)))
        del found[""]
        return found

    def remark(self) -> str:
        """Return a line about the images that are not used, or an empty text if all are."""
        unused = self.unused()
        if not unused:
            return ""
        used = sum(self.count(split) for split in ("train", "test"))
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(unused.items()))
        return f"{self.root}: {used:,} of {used + unused.total():,} images are used: {reasons}"

    def files(self, split: str) -> Files:
        """Return the images of ``train`` or ``test``, sorted by class and name.

        Raises:
            DatasetError: as :meth:`count` does.
        """
        import numpy as np

        paths, labels = [], []
        for name, files in self._by_class(split):
            paths += [os.fsencode(f"{name}/{file}") for file in sorted(files)]
            labels += [self.classes.index(name)] * len(files)
        return Files(self.folder(split), np.array(paths), np.array(labels, np.int64))

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change with the name, split or size of any image.

        They also change with any byte if all images together have at most ``HASHED_BYTES`` (1 GiB).
        Contents of larger data sets are not read, because ImageNet has 140 GB. An image replaced
        by another of the same size is then not noticed.

        Raises:
            DatasetError: a file or folder cannot be read.
        """
        total = hashlib.sha256()
        paths: list[Path] = []
        bytes_in_all = 0
        for split in ("train", "test"):
            files = self.files(split)
            for name in files.names:
                paths.append(path_of(files.folder, name))
                size = _size(paths[-1])
                total.update(b"%s/%s\0%d\n" % (split.encode(), name, size))
                bytes_in_all += size
        if bytes_in_all <= HASHED_BYTES:
            for path in paths:
                total.update(_digest(path))
        return total.hexdigest()[:16]

    def _by_class(self, split: str) -> Iterator[tuple[str, list[str]]]:
        folder = self.folder(split)
        for name in _subfolders(folder):
            files = [entry.name for entry in _entries(folder / name) if _is_image(entry)]
            if not files:
                raise DatasetError(f"{folder / name} holds no image, expected {_wanted()}")
            yield name, files


@dataclass(frozen=True, eq=False)
class Files:
    """Image files below a folder: their names relative to it, and their labels.

    The names are one array of bytes. A million Python strings would be copied into every worker
    process, because reading them changes their reference counts.
    """

    folder: Path
    names: np.ndarray
    labels: Int64[np.ndarray, image]


def path_of(folder: Path, name: bytes) -> Path:
    """Return the path of a file of :class:`Files`."""
    return folder / os.fsdecode(name)


def class_folders(root: Path) -> ClassFolders:
    """Return the class folders of the data set in ``root``.

    Raises:
        DatasetError: the folder ``train`` or ``val`` is missing, the number of classes is not
            2 to :data:`MOST_CLASSES`, or ``val`` has a class that ``train`` lacks.
    """
    if not (root / "train").is_dir():
        raise DatasetError(f"{root} has no folder train, expected train/<class>/{_wanted()}")
    test_folder = next((name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if test_folder is None:
        raise DatasetError(f"{root} has no folder val (or test), expected val/<class>/{_wanted()}")
    classes = tuple(_subfolders(root / "train"))
    if not 2 <= len(classes) <= MOST_CLASSES:
        found = f"{len(classes):,} class folders, expected 2 to {MOST_CLASSES:,}"
        raise DatasetError(f"{root / 'train'} holds {found}")
    tested = _subfolders(root / test_folder)
    if not tested:
        reason = "has no class folders: sort its images into folders named as in train"
        raise DatasetError(f"{root / test_folder} {reason}")
    if others := sorted(set(tested) - set(classes)):
        raise DatasetError(f"{root / test_folder} has a class {others[0]!r} that train lacks")
    return ClassFolders(root, classes, test_folder)


def looks_like_class_folders(root: Path) -> bool:
    """Return whether ``root`` has folders for training and test images."""
    return (root / "train").is_dir() and any((root / name).is_dir() for name in TEST_FOLDERS)


def _wanted() -> str:
    return f"*{{{','.join(SUFFIXES)}}}"


def _subfolders(folder: Path) -> list[str]:
    found = (entry.name for entry in _entries(folder) if entry.is_dir())
    return sorted(name for name in found if not name.startswith("."))


def _is_image(entry: os.DirEntry[str]) -> bool:
    name = entry.name.lower()
    return name.endswith(SUFFIXES) and not name.startswith(".") and entry.is_file()


def _reason_unused(entry: os.DirEntry[str]) -> str:
    """Return why an entry of a class folder is not used, or "" if it is, or is no image."""
    name = entry.name.lower()
    if name.startswith(".") or _is_image(entry):
        return ""
    if entry.is_symlink() and not os.path.exists(entry.path):
        return "broken links"
    if entry.is_dir():
        return "in folders below a class" if _holds_images(entry.path) else ""
    suffix = os.path.splitext(name)[1]
    return f"with the extension {suffix}" if suffix in OTHER_SUFFIXES else ""


def _reason_outside(entry: os.DirEntry[str]) -> str:
    """Return why an entry beside the class folders is not used, or "" if there is no reason."""
    if entry.is_symlink() and not os.path.exists(entry.path):
        return "broken links"
    return "outside of class folders" if _is_image(entry) else ""


def _holds_images(folder: str) -> bool:
    return any(_is_image(entry) for entry in _entries(Path(folder)))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror}") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
