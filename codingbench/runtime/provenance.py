"""Provenance of numbers: the columns of table ``cells`` about software and machine."""

import contextlib
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import codingbench
from codingbench.runtime.devices import device_name
from codingbench.runtime.host import host_hash


def provenance(device: torch.device, names_host: bool = True) -> dict[str, Any]:
    """Return versions, the commit if the package is a checkout, and the machine.

    ``host`` is a hash of the machine's name. Rows of one machine can be recognised by it, while the
    name stays private.
    """
    on_cuda = device.type == "cuda"
    return {
        **_software(),
        "cuda_version": torch.version.cuda if on_cuda else None,
        "cudnn_version": str(torch.backends.cudnn.version()) if on_cuda else None,
        "device": str(device),
        "device_name": device_name(device),
        "host": host_hash() if names_host else None,
    }


@cache
def _software() -> dict[str, Any]:
    root = Path(codingbench.__file__).parents[1]
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    return {
        "codingbench_version": codingbench.__version__,
        "python_version": platform.python_version(),
        "torch_version": torch.__version__,
        "snntorch_version": version("snntorch"),
        "git_commit": commit,
        "git_dirty": is_dirty(root) if commit else None,
    }


def is_dirty(root: Path) -> bool:
    """Return whether a checkout has uncommitted changes, apart from its folder of results."""
    return bool(_git(root, "status", "--porcelain", "--", ".", ":!results"))


def _git(root: Path, *command: str) -> str | None:
    """Return the output of a git command, or None if it fails."""
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
