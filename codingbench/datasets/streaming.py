"""A split whose images stay in their files and are decoded by worker processes during training.

The training process draws all random numbers: the order of the images and their crops. Workers draw
none, so any number of workers gives exactly the same batches.
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
from codingbench.runtime.lifeline import end_with_parent

MOST_DECODERS: Final = 8
AHEAD: Final = 2
"""Number of batches that each decoder prepares in advance."""

_BATCH: Final = 64  # images decoded at once when a split is loaded into memory

Request = tuple[np.ndarray, Crops | None]
"""Names of the files of a batch, and their crops."""


def default_decoders(device: torch.device, threads: int) -> int:
    """Return 1 on a CPU, where the network needs the cores, else up to one decoder per thread."""
    return 1 if device.type == "cpu" else min(threads, MOST_DECODERS)


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """A split of photographs; image i is the file in row ``rows[i]`` of ``files``.

    At most ``AHEAD`` batches per decoder and the current batch are in memory.

    Args:
        files: the image files.
        rows: rows of ``files``, one for each image.
        labels: labels of the images, on the device of the batches.
        size: height and width of the decoded images, in pixels.
        decoders: number of worker processes; 0: decode in this process, one batch at a time.
    """

    files: Files
    rows: Int64[np.ndarray, "image"]
    labels: Int64[Tensor, "image"]
    size: int
    decoders: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width; see ``ImageSplit``, also for the methods."""
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
            collate_fn=_unchanged,
            num_workers=self.decoders,
            prefetch_factor=AHEAD if self.decoders else None,
            multiprocessing_context=_process_context() if self.decoders else None,
            worker_init_fn=_begin_decoder,
            pin_memory=on_cuda,
            generator=Generator(),  # otherwise it would use the global one
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
        """Return the split with all images in memory, cut as for evaluation."""
        images = torch.empty(len(self.rows), *self.shape, dtype=torch.uint8)
        parts = images.split(_BATCH)
        for part, (batch, _) in zip(parts, self.batches(_BATCH), strict=True):
            part.copy_(batch)
        return Split(images, self.labels)

    def _requests(self, order: Tensor, size: int, crops: Crops | None) -> Iterator[Request]:
        rows = self.rows[order.numpy()]
        for start in range(0, len(rows), size):
            names = self.files.names[rows[start : start + size]]
            yield names, crops.part(start, start + size) if crops else None


class _Decoding(Dataset[Tensor | DatasetError]):
    """Decodes requested files of a folder; runs in a worker process."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size

    def __getitem__(self, request: Request) -> Tensor | DatasetError:
        """Return the images, or the error: DataLoader would add a traceback to a raised one."""
        names, crops = request
        images = np.empty((len(names), 3, self.size, self.size), np.uint8)
        try:
            for place, name in enumerate(names):
                part = None if crops is None else crops.part(place, place + 1).box
                images[place] = read_photo(path_of(self.folder, name), self.size, part)
        except DatasetError as error:
            return error
        return torch.from_numpy(images)


def _unchanged(batch: Any) -> Any:
    return batch


def _process_context() -> BaseContext:
    """Return how workers are started: never by forking this process, whose threads could hang them.

    A fork server imports this module once, so that workers start quickly.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    set_forkserver_preload([__name__])
    return get_context("forkserver")


def _begin_decoder(decoder: int) -> None:
    """Ignore Ctrl-C, which reaches all processes of a terminal, and end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()  # torch watches the fork server instead, which outlives the parent
