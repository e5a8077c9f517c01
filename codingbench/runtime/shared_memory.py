"""The shared memory of this machine, through which decoders hand over their batches."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SHARED_MEMORY: Final = Path("/dev/shm")
"""The folder of the shared memory on Linux; a container often has 64 MB of it. Other systems have
no such limit."""


@dataclass(frozen=True)
class SharedMemory:
    """Bytes of shared memory: all, and those that are free."""

    total: int
    free: int


def shared_memory() -> SharedMemory | None:
    """Return the size of the shared memory, or None where it has no limit of its own."""
    if not SHARED_MEMORY.is_dir():
        return None
    found = os.statvfs(SHARED_MEMORY)
    return SharedMemory(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
