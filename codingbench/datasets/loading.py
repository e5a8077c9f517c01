"""Load splits of image data sets, and add data sets by downloading or copying files.

Descriptions are in :mod:`codingbench.datasets.catalogue`, the search for files is in
:mod:`codingbench.datasets.files`. Reading a CIFAR archive and downloading need torchvision.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codingbench.datasets.catalogue import (
    ARCHIVES,
    SPLITS,
    Archive,
    catalogue,
    get_info,
    known_counts,
)
from codingbench.datasets.files import Source, find, find_at, home, locate
from codingbench.errors import DatasetError, SpecError

if TYPE_CHECKING:  # listing the data sets does not need them
    import numpy as np
    from jaxtyping import Int64

    from codingbench.datasets.decoding import Pixels
    from codingbench.datasets.download import DownloadListener
    from codingbench.datasets.images import EncodedSplit, Split
    from codingbench.datasets.streaming import StreamedSplit


def load(source: Source, split: str, samples: int | None = None) -> Split:
    """Load the images of a split, one of each class in turn, so that every prefix is balanced.

    Images are sorted by (rank within their class, class); ranks follow the order in the files. A
    smaller subset is therefore always part of a larger one.

    Args:
        source: the located data set.
        split: ``train`` or ``test``.
        samples: load only the first ``samples`` images; None: all.

    Raises:
        SpecError: ``samples`` is less than 1.
        DatasetError: the split has fewer than ``samples`` images, or a file is broken.
    """
    import torch

    from codingbench.datasets.images import Split

    if source.form == "folders":
        return stream(source, split, samples).held()
    if source.own:
        part = source.own.data.part(split)
        rows = _chosen(source, split, part.labels, samples)
        return Split(*(torch.from_numpy(array[rows]) for array in (part.images, part.labels)))
    encoded = _read(source, split)
    _check_labels(source, split, encoded.labels)
    chosen = _chosen(source, split, encoded.labels, samples)
    images, labels = _pixels(source, split, encoded, chosen), encoded.labels[chosen]
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def _pixels(
    source: Source, split: str, encoded: EncodedSplit, chosen: Int64[np.ndarray, image]
) -> Pixels:
    """Return the chosen images, from the cache of decoded images if they are there."""
    if source.form == "archive":  # its images are not encoded
        return encoded.decode(chosen)
    import numpy as np

    from codingbench.datasets.decoded import decoded

    count = len(encoded.labels)
    every = decoded(
        source,
        split,
        count,
        lambda: encoded.decode(np.arange(count)),
        is_all=len(chosen) == count,
    )
    return encoded.decode(chosen) if every is None else every[chosen]


def stream(
    source: Source, split: str, samples: int | None = None, decoders: int = 0
) -> StreamedSplit:
    """Return the photographs that :func:`load` would load, without decoding them yet.

    Args:
        decoders: number of worker processes; 0: decode in this process.

    Raises:
        SpecError, DatasetError: as :func:`load`, except that broken files are found when decoded.
    """
    import torch

    from codingbench.datasets.photos import Form
    from codingbench.datasets.streaming import StreamedSplit

    files = source.class_folders().files(split)
    rows = _chosen(source, split, files.labels, samples)
    labels = torch.from_numpy(files.labels[rows])
    form = Form(*source.info.shape, is_native=source.info.is_native)
    return StreamedSplit(files, rows, labels, form, decoders)


def load_or_stream(
    source: Source, split: str, samples: int, crops: bool, decoders: int
) -> Split | StreamedSplit:
    """Load a split, or stream it if :meth:`.DatasetInfo.is_streamed` says so."""
    if not source.info.is_photos:
        return load(source, split, samples)
    streamed = stream(source, split, samples, decoders)
    return streamed if source.info.is_streamed(samples, crops) else streamed.held()


def _chosen(
    source: Source, split: str, labels: Int64[np.ndarray, image], samples: int | None
) -> Int64[np.ndarray, image]:
    """Return the rows of the first ``samples`` images in the balanced order."""
    if samples is not None and samples < 1:
        raise SpecError(f"samples must be at least 1, got {samples}")
    if samples is not None and samples > len(labels):
        raise DatasetError(
            f"{source.folder}: {samples} {split} images of {source.info.name} were requested, but"
            f" there are {len(labels)}"
        )
    return _balanced_order(labels)[:samples]


def _read(source: Source, split: str) -> EncodedSplit:
    from codingbench.datasets import archives, images
    from codingbench.datasets.class_names import check_names

    files, info = source.files[split], source.info
    most_images = {"train": info.train_size, "test": info.test_size}[split]
    if source.form != "archive":
        first = source.files["train"][0]
        names = images.names_in(first)
        check_names(first, info.name, names)
        return images.read_parquet(files, info.shape, most_images, names)
    archive = ARCHIVES[info.name]
    if archive.tar is None:
        return archives.read_idx(files[0], files[1], info.shape, most_images)
    return archives.read_cifar(files, archive.class_name, split)


def _check_labels(source: Source, split: str, labels: Int64[np.ndarray, image]) -> None:
    import numpy as np

    num_classes = source.info.num_classes
    files = f"{source.folder} ({', '.join(path.name for path in source.files[split])})"
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise DatasetError(
            f"{files}: {split} labels must be 0 to {num_classes - 1},"
            f" got {labels.min()} to {labels.max()}"
        )
    absent = sorted(set(range(num_classes)) - set(np.unique(labels).tolist()))
    if absent:
        few = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
        raise DatasetError(
            f"{files}: {split} must hold all {num_classes} classes of {source.info.name},"
            f" {len(absent)} are absent: {few}"
        )
    _check_counts(source, split, np.bincount(labels, minlength=num_classes).tolist())


def _check_counts(source: Source, split: str, counts: Sequence[int]) -> None:
    """Refuse more images of a class than the known data set has: they are of another data set.

    Fewer images are a part of the data set, as far as can be known.
    """
    known_of = known_counts(source.info, split) if source.form in ("parquet", "archive") else ()
    for label, (found, known) in enumerate(zip(counts, known_of, strict=False)):
        if found > known:
            in_all = f"{sum(counts):,} images, {min(counts):,} to {max(counts):,} of a class"
            raise DatasetError(
                f"{source.folder} holds other data than {source.info.name}: {found:,} {split} "
                f"images of class {label}, expected at most {known:,} (found {in_all})"
            )


def _balanced_order(labels: Int64[np.ndarray, image]) -> Int64[np.ndarray, image]:
    """Return row numbers sorted by (rank within the class, class)."""
    import numpy as np

    by_class = np.argsort(labels, kind="stable")
    sorted_labels = labels[by_class]
    first_of_class = np.searchsorted(sorted_labels, sorted_labels)
    rank = np.arange(len(labels)) - first_of_class
    return by_class[np.lexsort((sorted_labels, rank))]


def fetch(name: str, data_dir: Path | None, listener: DownloadListener | None = None) -> Source:
    """Locate the files of a data set, and download them first if there are none.

    The md5 sums are those in torchvision, the https addresses those in torchvision and in the
    catalogue.

    Args:
        name: of the data set.
        data_dir: folder of data sets; None: the platform's cache folder.
        listener: receives the progress of downloads; None: lines on stderr.

    Raises:
        SpecError: there is no data set of that name.
        DatasetError: the download failed. The message says what to fetch by hand and where to put
            it.
    """
    if found := find(name, data_dir):
        return found
    if get_info(name, data_dir).is_photos:
        return locate(name, data_dir)  # its error says which files to put where
    from codingbench.datasets.archives import torchvision_class
    from codingbench.datasets.download import download

    target, archive = home(name, data_dir), ARCHIVES[name]
    downloads = _downloads(archive, torchvision_class(archive.class_name))
    with _staged(target) as folder:
        try:
            for file, (urls, md5) in downloads.items():
                download(urls, folder / file, md5, listener)
        except DatasetError as error:
            wanted = " ".join(urls[0] for urls, _ in downloads.values())
            raise DatasetError(
                f"download failed ({error}); fetch {wanted} by hand and put into {target}"
            ) from error
    return locate(name, target.parent)


def _downloads(archive: Archive, source: Any) -> dict[str, tuple[list[str], str]]:
    """Return the addresses and the md5 sum of each file, as given by a class of torchvision."""
    from codingbench.datasets.download import is_safe

    if hasattr(source, "tgz_md5"):
        return {source.filename: ([source.url], source.tgz_md5)}
    mirrors = [*archive.mirrors, *filter(is_safe, source.mirrors)]
    return {
        file: ([f"{mirror}{file}" for mirror in mirrors], md5) for file, md5 in source.resources
    }


def import_files(path: Path, name: str, data_dir: Path | None) -> Source:
    """Copy a data set to the folder where it will be found.

    Both splits are loaded first. If an error occurs, nothing is copied.

    Args:
        path: a folder with the files, or CIFAR's tar archive.
        name: name of the data set.
        data_dir: folder of data sets; None: the platform's cache folder.

    Raises:
        DatasetError: ``path`` has no such files, a file is broken, or the target is not empty.
    """
    info = get_info(name, data_dir)
    if info.is_photos or info.address:
        raise DatasetError(
            f"data set {name!r} is read in place and cannot be imported: see --data-dir"
        )
    if name not in ARCHIVES:
        owner = "codingbench" if name in catalogue() else "the distribution that publishes it"
        raise DatasetError(f"data set {name!r} is part of {owner} and cannot be imported")
    found = find_at(info, path)
    for split in SPLITS:
        load(found, split)
    target = home(name, data_dir)
    with _staged(target) as folder:
        for source in {source for split in SPLITS for source in found.files[split]}:
            copy = folder / _stored_name(found, source)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, copy)
    return locate(name, target.parent)


def _stored_name(source: Source, path: Path) -> str:
    archive = ARCHIVES[source.info.name]
    if source.form == "parquet" or archive.tar is None:
        return path.name
    is_tar = path.name.endswith((".tar.gz", ".tgz"))
    return archive.tar if is_tar else f"{archive.folder}/{path.name}"


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """Yield a new folder, renamed to ``target`` if the block succeeds and removed if it fails."""
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise DatasetError(f"{target} already exists and is not empty; move it away first")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
            staged = Path(temporary) / target.name
            staged.mkdir()
            yield staged
            if target.exists():
                target.rmdir()  # not every platform can rename a folder onto an existing one
            staged.rename(target)
    except OSError as error:
        raise DatasetError(f"{target} cannot be written: {error.strerror or error}") from error
