"""Checkpoints of a training: ``<folder>/<key>/000007.ckpt``, the newest two of each cell.

A file holds the output of ``torch.save``, followed by one line of fixed length with the SHA-256 of
everything before it, which reveals truncated and altered files. Files are read with
``weights_only``, so nothing in them is executed. The claims of the store ensure that only one
process at a time works on a key.
"""

import hashlib
import io
import shutil
import time
import warnings
from pathlib import Path
from typing import Any, Final

import torch

import codingbench
from codingbench.errors import StoreError, one_line
from codingbench.store.durable import sync_folder, write_durably
from codingbench.store.layout import CHECKPOINTS as CHECKPOINTS

MOST_BYTES: Final = 16 * 2**30
"""Larger files are not read, because no training writes them."""

_TRAILER = b"\ncodingbench checkpoint 1 sha256="  # 1: version of the format and of the state
_LENGTH = len(_TRAILER) + 64
_KEPT = 2
_COST = 1 / 50  # largest share of the time that periodic checkpoints may take


class Checkpoints:
    """The checkpoints of one cell. Nothing is read or created before a method is called.

    Args:
        folder: the folder with the checkpoints of all cells.
        key: the cell's key.
        least_s: shortest time between two periodic checkpoints, in seconds.
    """

    def __init__(self, folder: Path, key: str, least_s: float = 5.0) -> None:
        self.folder, self.key, self.least_s = Path(folder) / key, key, least_s
        self._pause_s, self._saved = least_s, time.monotonic()
        self.save_s = 0.0  # that the latest checkpoint took to write

    def is_due(self) -> bool:
        """Return True if the last one was written long enough ago.

        That is ``least_s`` seconds, but at least 50 times as long as writing it took.
        """
        return time.monotonic() - self._saved >= self._pause_s

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint completely or not at all, and remove all but the newest two.

        Args:
            state: tensors, numbers, strings, and lists and dictionaries of them.

        Raises:
            StoreError: the file cannot be written, for example on a full disk. Older checkpoints
                are kept.
        """
        started = time.monotonic()
        buffer = io.BytesIO()
        torch.save({**state, "key": self.key}, buffer)
        with buffer.getbuffer() as payload:
            trailer = _TRAILER + _digest(payload)
        buffer.write(trailer)
        newest = max((int(path.stem) for path in self._files()), default=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_durably(self.folder / f"{newest + 1:06d}.ckpt", buffer.getbuffer())
            for stale in [*self._files()[_KEPT:], *self.folder.glob(".*.tmp")]:
                stale.unlink(missing_ok=True)
        except OSError as error:
            raise self._refused("write", error) from error
        self._saved = time.monotonic()
        self.save_s = self._saved - started
        self._pause_s = max(self.least_s, self.save_s / _COST)

    def load(self) -> dict[str, Any] | None:
        """Load the newest intact checkpoint with its tensors on the CPU; None if there is none.

        A damaged checkpoint is renamed to ``*.damaged`` with a warning, and the previous one is
        loaded. ``state["key"]`` is the key of the cell.

        Raises:
            StoreError: a file is larger than 16 GiB or cannot be read.
        """
        try:
            for path in self._files():
                try:
                    return self._read(path)
                except _Damaged as damage:
                    aside = path.replace(path.with_name(f"{path.name}.damaged"))
                    sync_folder(self.folder)
                    warnings.warn(
                        f"checkpoint {str(path)!r} {damage}; it was renamed to {aside.name!r}, and "
                        "the previous checkpoint is used if there is one",
                        RuntimeWarning,
                        stacklevel=2,
                    )
        except OSError as error:
            raise self._refused("read", error) from error
        return None

    def exist(self) -> bool:
        """Return True if the cell has any checkpoint, damaged or not."""
        return bool(self._files())

    def clear(self) -> None:
        """Remove all checkpoints of the cell, including damaged ones."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        """Return the checkpoint files, newest first."""
        return sorted(self.folder.glob("[0-9]" * 6 + ".ckpt"), reverse=True)

    def _refused(self, verb: str, error: OSError) -> StoreError:
        reason = error.strerror or str(error)
        return StoreError(f"cannot {verb} checkpoints or weights in {str(self.folder)!r}: {reason}")

    def _read(self, path: Path) -> dict[str, Any]:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise StoreError(
                f"the checkpoint {str(path)!r} has {size / 2**30:.1f} GiB, expected at most "
                f"{MOST_BYTES / 2**30:.0f}"
            )
        data = memoryview(path.read_bytes())
        payload, trailer = data[:-_LENGTH], data[-_LENGTH:]
        if bytes(trailer[: len(_TRAILER)]) != _TRAILER:
            raise _Damaged("does not end like a checkpoint of this version")
        if bytes(trailer[len(_TRAILER) :]) != _digest(payload):
            raise _Damaged("is damaged: its content does not match its SHA-256")
        try:
            state: Any = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        except Exception as error:  # torch does not document which
            raise _Damaged(f"cannot be read by torch: {one_line(error)}") from error
        found = state.get("key") if isinstance(state, dict) else None
        if found != self.key:
            raise _Damaged(f"belongs to cell {found!r}, expected {self.key!r}")
        checked: dict[str, Any] = state
        return checked


def present_conditions(device: torch.device) -> dict[str, Any]:
    """Return everything besides the key that the bits of a training may depend on."""
    return {
        "codingbench": codingbench.__version__,
        "torch": str(torch.__version__),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


class _Damaged(Exception):
    """The file is not a usable checkpoint; the message continues a sentence after the file name."""


def _digest(data: memoryview) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()
