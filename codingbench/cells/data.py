"""The images of cells: where they are, and their splits, each loaded once."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import torch

from codingbench.cells.grid import Job
from codingbench.datasets import Source, fetch, find, load_or_stream
from codingbench.datasets.images import ImageSplit
from codingbench.datasets.streaming import default_decoders
from codingbench.errors import SpecError
from codingbench.runtime.formatting import counted
from codingbench.training.splits import Data, held_out_count, hold_out


def find_sources(jobs: Iterable[Job], data_dir: Path | None) -> dict[str, Source]:
    """Locate each data set of the jobs, by name, and download what is missing.

    Raises:
        DatasetError: a data set is missing and cannot be downloaded; the message says which files
            to put where.
    """
    infos = {job.cell.dataset: job.info for job in jobs}
    return {name: fetch(info.address or name, data_dir) for name, info in infos.items()}


def known_fingerprints(jobs: Iterable[Job], data_dir: Path | None) -> dict[str, str]:
    """Return the hash of each data set's files, by name, of those that are on this machine."""
    addresses = {job.cell.dataset: job.info.address or job.cell.dataset for job in jobs}
    found = {name: find(address, data_dir) for name, address in addresses.items()}
    return {name: source.fingerprint() for name, source in found.items() if source}


def check_classes(jobs: Iterable[Job]) -> None:
    """Refuse cells with too few images for one of each class in training and in the test.

    Raises:
        SpecError: a cell would train or test without the images of a class.
    """
    for job in jobs:
        cell, classes = job.cell, job.info.num_classes
        needed = f"expected one of each of the {classes} classes of {cell.dataset} or more"
        kept = cell.train_samples - held_out_count(cell.train_samples, job.recipe.val_fraction)
        if kept < classes:
            raise SpecError(
                f"train-samples: {counted(cell.train_samples, 'image')} without those for "
                f"validation are {kept}, {needed}"
            )
        if cell.test_samples < classes:
            raise SpecError(f"test-samples: {counted(cell.test_samples, 'image')}, {needed}")


def data_of(job: Job, train_split: ImageSplit, test: ImageSplit, device: torch.device) -> Data:
    """Hold out the validation images, and move all images to the device."""
    kept, val = hold_out(train_split, job.recipe.val_fraction)
    return Data(*(split.to(device) for split in (kept, val, test)))


class DataCache:
    """Loads the images of cells; a split that several cells use is loaded once.

    Successive cells with the same images share them on the device, too.

    Args:
        jobs: of the cells.
        data_dir: where data sets are looked for first.
        device: where the images go.
        decoders: processes that decode photographs, 0 or more; None: chosen from ``threads``.
        threads: CPU threads of each cell.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        data_dir: Path | None,
        device: torch.device,
        decoders: int | None,
        threads: int,
    ) -> None:
        self.jobs, self.data_dir, self.device = jobs, data_dir, device
        self.decoders = default_decoders(device, threads) if decoders is None else decoders
        self._splits: dict[tuple[str, str, int, bool], ImageSplit] = {}
        self._last: tuple[tuple[object, ...], Data] | None = None

    def load(self, job: Job) -> Data:
        """Return the images of a cell, on the device.

        Raises:
            DatasetError: the data set is missing or broken.
        """
        cell, crops = job.cell, job.recipe.augment.resized_crop is not None
        images = cell.dataset, cell.train_samples, cell.test_samples, crops
        key = *images, job.recipe.val_fraction
        if self._last is None or self._last[0] != key:
            self._last = None  # a device may have no room for both
            train = self._split(cell.dataset, "train", cell.train_samples, crops)
            test = self._split(cell.dataset, "test", cell.test_samples, False)
            self._last = key, data_of(job, train, test, self.device)
        return self._last[1]

    @cached_property
    def _sources(self) -> dict[str, Source]:
        return find_sources(self.jobs, self.data_dir)

    def _split(self, dataset: str, name: str, samples: int, crops: bool) -> ImageSplit:
        key = dataset, name, samples, crops
        if key not in self._splits:
            source = self._sources[dataset]
            self._splits[key] = load_or_stream(source, name, samples, crops, self.decoders)
        return self._splits[key]
