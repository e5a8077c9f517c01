"""The device a cell runs on, its memory, and the provenance of its numbers."""

import contextlib
import ctypes
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import codingbench
from codingbench.errors import SpecError, unknown

_KINDS = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA, else MPS, else the CPU; else ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        SpecError: no such kind of device, or torch sees none here.
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
        raise SpecError(f"device {name!r} was asked for, but torch {torch.__version__} sees none")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """The product's name as the system gives it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    return platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Let the C library keep freed blocks instead of handing each back to the system.

    Training frees and asks for the same large blocks in every step; by default glibc maps each
    anew, and the page faults are a large part of a small network's training step on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, most_mmaps = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX in malloc.h
    mallopt(most_mmaps, 0)
    mallopt(trim_threshold, 2**31 - 1)


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets VmHWM


def peak_memory_mb(device: torch.device) -> float:
    """Peak since the last reset, in 2^20 bytes: of the GPU, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == "Darwin" else 1024)


@cache
def software() -> dict[str, Any]:
    """Columns of table ``cells``: versions, and the commit where the package is a checkout."""
    root = Path(codingbench.__file__).parents[1]
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    return {
        "codingbench_version": codingbench.__version__,
        "python_version": platform.python_version(),
        "torch_version": torch.__version__,
        "snntorch_version": version("snntorch"),
        "git_commit": commit,
        "git_dirty": bool(_git(root, "status", "--porcelain")) if commit else None,
    }


def _git(root: Path, *command: str) -> str | None:
    """What git prints, or None where it cannot answer."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "-C", str(root), *command],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return done.stdout.strip()
    return None
