"""A split whose images stay in their files: decoded in worker processes, ahead of the training.

What a batch holds follows from its numbers and crops, which this process draws; workers draw
nothing. Any number of them gives the same bits.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context, set_forkserver_preload
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Int64
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from codingbench.datasets.crops import Crops
from codingbench.datasets.folders import Files, path_of
from codingbench.datasets.images import Batch, Split, split_order
from codingbench.datasets.photos import read_photo
from codingbench.datasets.pixels import onto
from codingbench.errors import DatasetError

MOST_DECODERS: Final = 8
AHEAD: Final = 2
"""Batches that each decoder has ready or is at."""

_HELD_BATCH: Final = 64

Request = tuple[np.ndarray, Crops | None]
"""Names of files, and their crops."""


def default_decoders(device: torch.device, threads: int) -> int:
    """One on a CPU, where the network needs the cores; else as many as the cell has threads."""
    return 1 if device.type == "cpu" else min(threads, MOST_DECODERS)


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """Image i is the file in row ``rows[i]`` of ``files``, decoded whenever it is asked for.

    Never in memory are more than ``AHEAD`` batches per decoder and the one that is trained on.

    Args:
        labels: on the device that the batches are to be on.
        size: of the images, in pixels.
        decoders: processes that decode; 0: this one does, when a batch is asked for.
    """

    files: Files
    rows: Int64[np.ndarray, "image"]
    labels: Int64[Tensor, "image"]
    size: int
    decoders: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """See :class:`~codingbench.datasets.images.ImageSplit`, as for the methods."""
        return 3, self.size, self.size

    def batches(
        self, size: int, order: Int64[Tensor, "place"] | None = None, crops: Crops | None = None
    ) -> Iterator[Batch]:
        order = torch.arange(len(self.rows)) if order is None else order
        device = self.labels.device
        on_cuda = device.type == "cuda"
        loader: DataLoader[Any] = DataLoader(
            _Decoding(self.files.folder, self.size),
            batch_size=None,
            sampler=self._requests(order, size, crops),
            collate_fn=_as_it_is,
            num_workers=self.decoders,
            prefetch_factor=AHEAD if self.decoders else None,
            multiprocessing_context=_processes() if self.decoders else None,
            worker_init_fn=_heed_the_parent_alone,
            pin_memory=on_cuda,
            generator=Generator(),  # or it would draw from the global one
        )
        for images, chosen in zip(loader, split_order(order, size), strict=True):
            if isinstance(images, DatasetError):
                raise images
            yield images.to(device, non_blocking=on_cuda), self.labels[onto(chosen, device)]

    def subset(self, chosen: Int64[Tensor, "place"]) -> "StreamedSplit":
        rows = self.rows[chosen.cpu().numpy()]
        return StreamedSplit(self.files, rows, self.labels[chosen], self.size, self.decoders)

    def to(self, device: torch.device) -> "StreamedSplit":
        labels = self.labels.to(device)
        return StreamedSplit(self.files, self.rows, labels, self.size, self.decoders)

    def held(self) -> Split:
        """All images in memory, as they are evaluated."""
        images = torch.empty(len(self.rows), *self.shape, dtype=torch.uint8)
        parts = images.split(_HELD_BATCH)
        for part, (batch, _) in zip(parts, self.batches(_HELD_BATCH), strict=True):
            part.copy_(batch)
        return Split(images, self.labels)

    def _requests(self, order: Tensor, size: int, crops: Crops | None) -> Iterator[Request]:
        rows = self.rows[order.numpy()]
        for start in range(0, len(rows), size):
            names = self.files.names[rows[start : start + size]]
            yield names, crops.part(start, start + size) if crops else None


class _Decoding(Dataset[Tensor | DatasetError]):
    """What a decoder knows: where the files are. Which ones, it is told with each batch."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size

    def __getitem__(self, request: Request) -> Tensor | DatasetError:
        """The images; an error is handed on as it is, for DataLoader would add its traceback."""
        names, crops = request
        images = np.empty((len(names), 3, self.size, self.size), np.uint8)
        try:
            for place, name in enumerate(names):
                part = None if crops is None else crops.part(place, place + 1).box
                images[place] = read_photo(path_of(self.folder, name), self.size, part)
        except DatasetError as error:
            return error
        return torch.from_numpy(images)


def _as_it_is(batch: Any) -> Any:
    return batch


def _processes() -> BaseContext:
    """Processes that begin empty, for a fork of one that has threads or a GPU may hang; where
    there is one to fork them from, it has imported all that decoding needs."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    set_forkserver_preload([__name__])
    return get_context("forkserver")


def _heed_the_parent_alone(decoder: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the parent decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
