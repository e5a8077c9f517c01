"""A split whose images stay in their files and are decoded by worker processes during training.

The training process draws all random numbers: the order of the images and their crops. Workers draw
none, so any number of workers gives exactly the same batches.
"""

import math
import os
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context, set_forkserver_preload
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue
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
from codingbench.datasets.photos import Form, read_image
from codingbench.datasets.pixels import onto
from codingbench.errors import DatasetError, one_line
from codingbench.runtime.lifeline import end_with_parent
from codingbench.runtime.shared_memory import SHARED_MEMORY, shared_memory

MOST_DECODERS: Final = 8
AHEAD: Final = 2
"""Number of batches that each decoder prepares in advance."""

_BATCH: Final = 64  # images decoded at once when a split is loaded into memory
_has_told = False  # of too little shared memory

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
        form: channels, height and width of the decoded images.
        decoders: number of worker processes; 0: decode in this process, one batch at a time.
    """

    files: Files
    rows: Int64[np.ndarray, "image"]
    labels: Int64[Tensor, "image"]
    form: Form
    decoders: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width; see ``ImageSplit``, also for the methods."""
        return self.form.shape

    def batches(
        self, size: int, order: Int64[Tensor, "place"] | None = None, crops: Crops | None = None
    ) -> Iterator[Batch]:
        order = torch.arange(len(self.rows)) if order is None else order
        device = self.labels.device
        on_cuda = device.type == "cuda"
        decoding = _Decoding(self.files.folder, self.form)
        decoders = self._decoders_with_room(len(order), size)
        received = _received(self._loader(decoding, self._requests(order, size, crops), decoders))
        requests, chosen = self._requests(order, size, crops), split_order(order, size)
        for images, request, places in zip(received, requests, chosen, strict=True):
            if isinstance(images, _NoRoom):
                _tell_of_no_room(images.reason)
                images = decoding[request]
            if isinstance(images, DatasetError):
                raise images
            yield images.to(device, non_blocking=on_cuda), self.labels[onto(places, device)]

    def _loader(
        self, decoding: "_Decoding", requests: Iterator[Request], decoders: int
    ) -> DataLoader[Any]:
        return DataLoader(
            _Shared(decoding) if decoders else decoding,
            batch_size=None,
            sampler=requests,
            collate_fn=_unchanged,
            num_workers=decoders,
            prefetch_factor=AHEAD if decoders else None,
            multiprocessing_context=_process_context() if decoders else None,
            worker_init_fn=_begin_decoder,
            pin_memory=self.labels.device.type == "cuda",
            generator=Generator(),  # otherwise it would use the global one
        )

    def _decoders_with_room(self, count: int, size: int) -> int:
        """Return the number of decoders, or 0 with a warning if their batches have no room."""
        size = min(count, size)
        # the network has one more of them
        at_once = min(math.ceil(count / max(1, size)), AHEAD * self.decoders + 1)
        needed, room = at_once * size * math.prod(self.shape), shared_memory()
        if not self.decoders or room is None or needed <= room.free:
            return self.decoders
        _tell_of_no_room(
            f"it has {room.free / 1e6:.1f} MB free, and {at_once} batches of {size} images"
            f" need {needed / 1e6:.1f} MB"
        )
        return 0

    def subset(self, chosen: Int64[Tensor, "place"]) -> "StreamedSplit":
        rows = self.rows[chosen.cpu().numpy()]
        return StreamedSplit(self.files, rows, self.labels[chosen], self.form, self.decoders)

    def to(self, device: torch.device) -> "StreamedSplit":
        labels = self.labels.to(device)
        return StreamedSplit(self.files, self.rows, labels, self.form, self.decoders)

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

    def __init__(self, folder: Path, form: Form) -> None:
        self.folder, self.form = folder, form

    def __getitem__(self, request: Request) -> Tensor | DatasetError:
        """Return the images, or the error: DataLoader would add a traceback to a raised one."""
        names, crops = request
        images = np.empty((len(names), *self.form.shape), np.uint8)
        try:
            for place, name in enumerate(names):
                part = None if crops is None else crops.part(place, place + 1).box
                path = path_of(self.folder, name)
                images[place] = read_image(path, str(path), self.form, part)
        except DatasetError as error:
            return error
        return torch.from_numpy(images)


@dataclass(frozen=True)
class _NoRoom:
    """Stands for a batch that could not be put into shared memory."""

    reason: str


class _Shared(Dataset[Any]):
    """Puts decoded batches into shared memory; runs in a worker process.

    DataLoader would do so in a thread, and wait for ever for a batch that has no room there.
    """

    def __init__(self, decoding: _Decoding) -> None:
        self.decoding = decoding

    def __getitem__(self, request: Request) -> Tensor | DatasetError | _NoRoom:
        images = self.decoding[request]
        if isinstance(images, DatasetError):
            return images
        try:
            images.share_memory_()
        except RuntimeError as error:
            return _NoRoom(one_line(error))
        return images


def _received(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield the batches of a loader.

    Raises:
        RuntimeError: a decoder died.
    """
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise RuntimeError(
            f"a decoder of photographs died, perhaps for lack of memory or of {SHARED_MEMORY};"
            f" --decoders 0 uses none ({one_line(error)})"
        ) from error


def _tell_of_no_room(reason: str) -> None:
    """Warn of the first batch that has no room; the same is true of those that follow."""
    global _has_told
    if not _has_told:
        _has_told = True
        warnings.warn(
            f"photographs are decoded without decoders, as with --decoders 0, because"
            f" {SHARED_MEMORY} is too small: {reason}",
            stacklevel=2,
        )


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


def _end_decoder(error: Exception, batch: object) -> None:
    """End this process, which the parent notices: it would wait for ever for a batch not sent."""
    os._exit(1)


def _begin_decoder(decoder: int) -> None:
    """Ignore Ctrl-C, which reaches all processes of a terminal, and end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setattr(Queue, "_on_queue_feeder_error", staticmethod(_end_decoder))  # noqa: B010
    end_with_parent()  # torch watches the fork server instead, which outlives the parent
