"""Find the files of a data set: search a few folders for every known form."""

import contextlib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import platformdirs

from codingbench.datasets.catalogue import (
    ARCHIVES,
    DEFAULT_DATASET,
    PHOTO_FOLDER,
    SPLITS,
    Archive,
    PublishedDataset,
    catalogue,
    get_info,
    photo_root,
    published_dataset,
)
from codingbench.datasets.description import DatasetInfo
from codingbench.datasets.folders import (
    ClassFolders,
    class_folders,
    looks_like_class_folders,
)
from codingbench.datasets.own import OwnArrays, is_own_arrays, own_arrays
from codingbench.datasets.regular import digest
from codingbench.errors import DatasetError
from codingbench.plugins.specs import parse_spec
from codingbench.runtime.paths import data_folder

Form = Literal[
    "embedded",
    "parquet",
    "archive",
    "published",
    "folders",
    "npz file",
    "python file",
    "own shards",
]
Files = dict[str, tuple[Path, ...]]
_SHARD: Final = re.compile(r"-(\d{5})-of-(\d{5})\.parquet")


@dataclass(frozen=True)
class Source:
    """A data set and the paths of its files, ``files["train"]`` and ``files["test"]``."""

    info: DatasetInfo
    form: Form
    files: Files
    """The paths by split. Photographs have the folder that holds the class folders."""
    own: OwnArrays | None = None
    """The user's own arrays, already read."""

    @property
    def folder(self) -> Path:
        """The folder with the files."""
        return self.files["train"][0].parent

    def class_folders(self) -> ClassFolders:
        """Return the class folders of photographs.

        Raises:
            DatasetError: the folders are missing or do not fit each other.
        """
        return class_folders(self.folder)

    def remark(self) -> str:
        """Return a line about what was decided and about images that are not used, or "".

        Raises:
            DatasetError: the folders of photographs cannot be read.
        """
        if self.own:
            return self.own.remark()
        if self.form != "folders":
            return ""
        unused = self.class_folders().remark()
        if not self.info.name.startswith(PHOTO_FOLDER):
            return unused
        return "; ".join(filter(None, (self._decided(), unused)))

    def _decided(self) -> str:
        """Say what the images of a folder become, and which of its folders is the test."""
        info, folder = self.info, self.files["test"][0].name
        colour = "grey" if info.channels == 1 else "colour"
        how = f"{info.height}x{info.width} {colour}"
        if info.is_native:
            how += ", as in the files"
        elif info.name == _plain(info.name):
            how += ", scaled because sizes differ or are larger ([size=64] scales to 64 pixels)"
        else:
            how += ", scaled"
        return f"{info.name}: {how}; the test images are those in {folder}/"

    def _has_other_numbers(self) -> bool:
        """Return whether shards number the same classes differently, so that labels are mapped.

        Until 0.7.0 such labels were taken as they are, so these data have another fingerprint.
        """
        if self.form not in ("parquet", "published"):
            return False
        from codingbench.datasets.class_names import stated_names

        stated = {stated_names(path) for files in self.files.values() for path in set(files)}
        return len(stated - {None}) > 1

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change with any byte of any file, but not with paths.

        For a published data set they also change with its description; the other descriptions are
        part of codingbench. For photographs see
        :meth:`~codingbench.datasets.folders.ClassFolders.fingerprint`.

        Raises:
            DatasetError: a file cannot be read.
        """
        if self.own:
            return self.own.fingerprint()
        if self.form == "folders":
            content = self.class_folders().fingerprint()
            if self.info.channels == 3 and not self.info.is_native:
                return content  # as until 0.7.0, when all were scaled and in colour
            form = (*self.info.shape, self.info.is_native, self.info.mean, self.info.std)
            return hashlib.sha256(f"{content} {form}".encode()).hexdigest()[:16]
        digests = {path: digest(path) for files in self.files.values() for path in set(files)}
        total = hashlib.sha256()
        for split in SPLITS:
            total.update(split.encode() + b"".join(digests[path] for path in self.files[split]))
        if self._has_other_numbers():
            total.update(b"labels mapped by the names of their classes")
        if self.form == "published":
            total.update(repr((self.info.num_classes, self.info.mean, self.info.std)).encode())
        return total.hexdigest()[:16]


def cache_folder() -> Path:
    """Return the folder of data sets in the platform's cache, used if no folder is given."""
    return Path(platformdirs.user_cache_dir("codingbench", appauthor=False)) / "data"


def home(name: str, data_dir: Path | None) -> Path:
    """The folder that a data set is put into: in ``data_dir``, else in the cache folder."""
    return (data_folder(data_dir) or cache_folder()) / _plain(name)


def locate(name: str, data_dir: Path | None) -> Source:
    """Find the files of a data set in ``data_dir``, the cache folder or a system folder.

    Raises:
        SpecError: there is no data set of that name.
        DatasetError: its files were not found, or some are missing.
    """
    if found := find(name, data_dir):
        return found
    info = get_info(name, data_dir)
    target, looked = home(info.name, data_dir), places(info.name, data_dir)
    if info.is_photos:
        raise DatasetError(
            f"data set {info.name!r} not found, and cannot be downloaded: put train/<wnid>/*.JPEG"
            f" and val/<wnid>/*.JPEG, as image-net.org has them, into {target}"
            f" (looked in {', '.join(map(str, looked))})"
        )
    shards = "{train,test}-*-of-*.parquet"
    files = ARCHIVES[name].tar or "its four *-ubyte.gz files"
    raise DatasetError(
        f"data set {name!r} not found: run `codingbench data fetch {name}`, or put {files}"
        f" or {shards} into {target} (looked in {', '.join(map(str, looked))})"
    )


def places(name: str, data_dir: Path | None) -> list[Path]:
    """Return the folders that :func:`locate` searches, in this order.

    Raises:
        DatasetError: the folder of data sets is a file.
    """
    given = data_folder(data_dir)
    if given and given.is_file():
        raise DatasetError(f"expected a folder of data sets, got the file {str(given)!r}")
    bases = [given, cache_folder()] if given else [cache_folder()]
    folders = [folder for base in bases for folder in (base / _plain(name), base)]
    system = ARCHIVES[name].system_folder if name in ARCHIVES else None
    return folders + ([system] if system else [])


def _plain(name: str) -> str:
    """Return the name without its parameters."""
    return name.partition("[")[0]


def find(name: str, data_dir: Path | None) -> Source | None:
    """Find files as :func:`locate` does, but return None if there are none."""
    if found := published_dataset(name):
        return _find_published(found)
    if is_own_arrays(name):
        own = own_arrays(name, data_dir)
        return Source(own.info, own.form, dict.fromkeys(SPLITS, (own.path,)), own)
    info = get_info(name, data_dir)
    if info.is_photos:
        return _find_photos(info, data_dir)
    if info.name == DEFAULT_DATASET:
        return _find_in(info, Path(__file__).parent / info.name)
    for folder in places(info.name, data_dir):
        if source := _find_in(info, folder):
            return source
    return None


def own_names(data_dir: Path | None) -> list[str]:
    """Return the names of the user's own data sets in ``data_dir``.

    They are the .npz files, and the folders of class folders, among them ``data_dir`` itself.
    Python files are left out, because they would be run.
    """
    folder = data_folder(data_dir)
    if folder is None:
        return []
    with contextlib.suppress(OSError):
        roots = [folder.absolute(), *sorted(folder.iterdir())]
        found = [root.name for root in roots if looks_like_class_folders(root)]
        arrays = sorted(path.name for path in folder.glob("*.npz"))
        return [*(f"{PHOTO_FOLDER}{name}" for name in found if name not in catalogue()), *arrays]
    return []


def _find_photos(info: DatasetInfo, data_dir: Path | None) -> Source | None:
    """Find photographs in the folder that the name gives, or where data sets are kept."""
    if info.address.startswith(PHOTO_FOLDER):
        roots = [photo_root(parse_spec(info.address).name, data_dir)]
    else:
        roots = [p for p in places(info.name, data_dir) if looks_like_class_folders(p)][:1]
    for root in roots:
        found = class_folders(root)
        if len(found.classes) != info.num_classes:
            classes = f"{len(found.classes):,} class folders, expected {info.num_classes:,}"
            raise DatasetError(f"{root / 'train'} holds {classes} of {info.name}")
        files: Files = {split: (found.folder(split),) for split in SPLITS}
        return Source(info, "folders", files)
    return None


def _find_published(found: PublishedDataset) -> Source:
    """Find the files of a published data set, which must be in its folder."""
    try:
        files = _shards(Path(found.folder))
    except OSError as error:
        raise DatasetError(f"{found.folder} cannot be read: {error.strerror}") from error
    if files is None:
        shards = "{train,test}-*-of-*.parquet"
        raise DatasetError(f"{found.folder} holds no {shards} of the data set {found.info.name!r}")
    return Source(found.info, "published", files)


def find_at(info: DatasetInfo, path: Path) -> Source:
    """Find a data set in a folder, in the folder of its name inside, or in a tar archive.

    Raises:
        DatasetError: there are no such files.
    """
    archive = ARCHIVES[info.name]
    if path.is_file():
        if archive.tar is None or not path.name.endswith((".tar.gz", ".tgz")):
            wanted = f"the folder of the files{' or ' + archive.tar if archive.tar else ''}"
            raise DatasetError(f"{path} is a single file, expected {wanted}")
        return Source(info, "archive", dict.fromkeys(SPLITS, (path,)))
    for folder in (path, path / info.name):
        if found := _find_in(info, folder):
            return found
    raise DatasetError(
        f"{path} holds no files of {info.name}: expected {{train,test}}-*-of-*.parquet"
        f" or {archive.tar or 'the four *-ubyte files, .gz or not'}"
    )


def _find_in(info: DatasetInfo, folder: Path) -> Source | None:
    """Find a data set in any of its forms directly in a folder.

    Raises:
        DatasetError: files are missing, or the folder cannot be read.
    """
    if _has_name_of_another(info.name, folder):
        return None
    try:
        return _found(info, folder)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror}") from error


def _found(info: DatasetInfo, folder: Path) -> Source | None:
    if files := _shards(folder):
        return Source(info, "embedded" if info.name == DEFAULT_DATASET else "parquet", files)
    archive = ARCHIVES.get(info.name)
    if archive is None:
        return None
    if archive.tar and (tar := folder / archive.tar).is_file():
        return Source(info, "archive", dict.fromkeys(SPLITS, (tar,)))
    for loose in _loose_folders(archive, folder):
        if files := _loose_files(archive, loose):
            return Source(info, "archive", files)
    return None


def _has_name_of_another(name: str, folder: Path) -> bool:
    """Return whether a folder is named after another data set.

    Shards and idx files do not say which data set they hold, so the folder's name decides.
    """

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    return plain(folder.name) in {plain(other) for other in catalogue() if other != name}


def _shards(folder: Path) -> Files | None:
    files = {
        split: tuple(sorted(folder.glob(f"{split}-*-of-*.parquet")))
        or tuple(folder.glob(f"{split}.parquet"))
        for split in SPLITS
    }
    if not any(files.values()):
        return None
    for split in SPLITS:
        if not files[split]:
            raise DatasetError(f"{folder}: the shard {split}-00000-of-00001.parquet is missing")
        _check_shards(folder, split, [path.name for path in files[split]])
    return files


def _check_shards(folder: Path, split: str, names: list[str]) -> None:
    if names == [f"{split}.parquet"]:
        return
    parts = [_SHARD.fullmatch(name.removeprefix(split)) for name in names]
    totals = {part[2] for part in parts if part}
    if None in parts or len(totals) != 1:
        raise DatasetError(
            f"{folder}: expected shards {split}-00000-of-0000N.parquet of one N,"
            f" got {', '.join(names)}"
        )
    total = totals.pop()
    for index in range(int(total)):
        if (name := f"{split}-{index:05d}-of-{total}.parquet") not in names:
            raise DatasetError(f"{folder}: the shard {name} is missing")


def _loose_folders(archive: Archive, folder: Path) -> Iterable[Path]:
    yield folder / archive.folder
    # Extracted files of CIFAR have common names such as "test", so they need the right folder.
    if archive.tar is None or folder.name == archive.folder:
        yield folder


def _loose_files(archive: Archive, folder: Path) -> Files | None:
    candidates = {
        name: [path for path in (folder / f"{name}.gz", folder / name) if path.is_file()]
        for names in archive.members.values()
        for name in names
    }
    if not any(candidates.values()):
        return None
    for name, found in candidates.items():
        if not found:
            raise DatasetError(f"{folder}: the file {name} is missing")
    return {
        split: tuple(candidates[name][0] for name in names)
        for split, names in archive.members.items()
    }
