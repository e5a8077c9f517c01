"""The device that a cell runs on: its kind, threads and memory."""

import contextlib
import ctypes
import math
import os
import platform
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from codingbench.errors import SpecError, unknown
from codingbench.runtime.lean_torch import set_deterministic

_KINDS = ("auto", "cpu", "cuda", "mps")
_CGROUPS = [  # files with the limit and the use of memory: version 2, version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
]


def resolve_device(name: str) -> torch.device:
    """Return the device of a name: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    ``auto`` is CUDA if torch sees a GPU, else MPS, else the CPU.

    Raises:
        SpecError: there is no such kind of device, or torch sees none on this machine.
    """
    kind, _, index = name.partition(":")
    if kind not in _KINDS or (index and not index.isdigit()):
        raise SpecError(unknown("device", name, _KINDS))
    available = {
        "cuda": torch.cuda.is_available() and int(index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if kind == "auto":
        kind = next(k for k, is_here in available.items() if is_here)
        return torch.device(kind)
    if not available[kind]:
        raise SpecError(
            f"device {name!r} was requested, but torch {torch.__version__} sees none; "
            "codingbench doctor says why, and --device cpu needs none"
        )
    return torch.device(name)


def devices_from(first: torch.device, count: int) -> list[torch.device]:
    """Return ``count`` devices of one kind, from ``first`` on; those of a CPU are its cores.

    Raises:
        SpecError: there are fewer devices, or Lightning Fabric is not installed.
    """
    if count == 1:
        return [first]
    available, reason = 1, f"there is only one device {first.type!r}"
    if first.type == "cuda":
        available = torch.cuda.device_count() - (first.index or 0)
        reason = f"torch sees {available} GPUs from {str(first)!r} on"
    elif first.type == "cpu":
        available = _cores()
        reason = f"the CPU has {available} cores"
    if count > available:
        raise SpecError(f"{count} devices were requested, but {reason}")
    if not find_spec("lightning_fabric"):
        raise SpecError("several devices need Lightning Fabric: pip install 'codingbench[devices]'")
    if first.type == "cpu":
        return [first] * count
    return [torch.device(first.type, (first.index or 0) + i) for i in range(count)]


def _cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name(device: torch.device) -> str:
    """Return the product name of the device, as the system reports it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    return platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Let the C library keep freed blocks instead of returning each to the system.

    Every training step frees and allocates the same large blocks. By default glibc maps each of
    them again, and the page faults take a large part of a small network's training step on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX in malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


def warm_up(device: torch.device) -> Thread | None:
    """Load the libraries of a GPU in another thread, which takes seconds; return the thread.

    Any error is left to the first operation of the run itself.
    """
    if device.type != "cuda":
        return None
    thread = Thread(target=_convolve_once, args=(device,))
    thread.start()
    return thread


def _convolve_once(device: torch.device) -> None:
    with contextlib.suppress(Exception):
        images = torch.zeros(4, 16, 8, 8, device=device, requires_grad=True)
        weight = torch.zeros(16, 16, 3, 3, device=device, requires_grad=True)
        order = torch.channels_last
        last = images.to(memory_format=order), weight.to(memory_format=order)
        torch.nn.functional.conv2d(*last, padding=1).sum().backward()


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of the peak, where the system supports it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets VmHWM


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak since the last reset, in 2^20 bytes: the GPU's, or on a CPU the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == "Darwin" else 1024)


@contextlib.contextmanager
def conditions(threads: int, is_deterministic: bool) -> Iterator[None]:
    """Set torch's threads and its use of deterministic algorithms, and restore both at the end."""
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    deterministic: Any = torch.utils.deterministic
    fills = deterministic.fill_uninitialized_memory
    torch.set_num_threads(threads)
    set_deterministic(1 if is_deterministic else 0)
    deterministic.fill_uninitialized_memory = False  # nothing here reads such memory
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        set_deterministic(before[1])
        deterministic.fill_uninitialized_memory = fills


def available_memory_mb() -> float:
    """Return the memory that processes may still allocate, in 2^20 bytes.

    It is the free memory of the machine or of the container, whichever is less, and infinite where
    the system does not report it.
    """
    free = [_number_in(most, math.inf) - _number_in(used, 0) for most, used in _CGROUPS]
    return min(_machine_memory_mb("MemAvailable"), *(number / 2**20 for number in free))


def total_memory_mb() -> float:
    """Return the memory that processes share, in 2^20 bytes, however much of it is in use.

    It is the memory of the machine or the limit of the container, whichever is less, and infinite
    where the system does not report it.
    """
    limits = [_number_in(most, math.inf) for most, _ in _CGROUPS]
    return min(_machine_memory_mb("MemTotal"), *(number / 2**20 for number in limits))


def _machine_memory_mb(name: str) -> float:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(s.split()[1] for s in lines if s.startswith(f"{name}:"))) / 1024
    return math.inf


def _number_in(file: str, otherwise: float) -> float:
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        return int(Path(file).read_text())
    return otherwise
