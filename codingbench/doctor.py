"""Diagnosis of this machine: can it run benchmarks, and if not, what helps.

torch and torchvision are imported in a process of their own, because a broken build of either may
raise any exception or end the process, and the report must survive that.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from codingbench.datasets import DEFAULT_DATASET, cache_folder, catalogue, decoded, find
from codingbench.errors import DatasetError
from codingbench.runtime.paths import DATA_FOLDER, data_folder
from codingbench.runtime.shared_memory import SHARED_MEMORY, shared_memory

PACKAGES: Final = ("codingbench", "torch", "torchvision", "snntorch", "pandas", "pyarrow")
LITTLE_DISK_GB: Final = 2.0  # enough for CIFAR with its copies and the results of a large grid
_OF_CUDA: Final = ("nvidia-", "cuda-", "triton")  # names of packages
NO_DISK_GB: Final = 0.1
LITTLE_SHARED_GB: Final = 0.7  # 17 batches of 256 images of 224 x 224 pixels: eight decoders

_PROBE: Final = """
import json, torch
cuda = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print("probe:" + json.dumps({
    "cuda": [[device.name, device.total_memory] for device in cuda],
    "mps": torch.backends.mps.is_available(),
    "threads": torch.get_num_threads(),
    "cuda_build": torch.version.cuda,
}), flush=True)
import importlib.util, sys, types
if spec := importlib.util.find_spec("torchvision"):
    # without its models, for which it imports torch's compiler
    sys.modules["torchvision"] = package = types.ModuleType("torchvision")
    package.__path__, package.__spec__ = spec.submodule_search_locations, spec
import torchvision.extension, torchvision._meta_registrations, torchvision.datasets
print("probe:true", flush=True)
"""

_NEURONS: Final = """
import json, os, warnings, torch
os.environ.pop("CODINGBENCH_DEBUG", None)
from codingbench.neurons import MultiStepLeaky, fused
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for index in range(torch.cuda.device_count()):
        cur = torch.ones(2, 2, 16, device=f"cuda:{index}", requires_grad=True)
        MultiStepLeaky()(cur).sum().backward()
        torch.cuda.synchronize(index)
reasons = [str(warning.message) for warning in caught if fused.has_failed()]
if not fused.is_available(torch.device("cuda")) and not reasons:
    reasons.append("Triton is not installed")
print("probe:" + json.dumps({"neurons": reasons}), flush=True)
"""


_COMPILED: Final = """
import json, torch, warnings
from codingbench.neurons import MultiStepLeaky
from codingbench.neurons.backends import backend_run, use_backend
with warnings.catch_warnings(record=True) as caught, use_backend("compiled"):
    warnings.simplefilter("always")
    cur = torch.rand(3, 2, 16, requires_grad=True)
    MultiStepLeaky()(cur).sum().backward()
    ran = backend_run("compiled")
reasons = [str(warning.message) for warning in caught if "uncompiled" in str(warning.message)]
print("probe:" + json.dumps({"compiled": ran, "reasons": reasons}), flush=True)
"""

_COMPILER_ADVICE: Final = (
    "training works but may be slower; TORCHINDUCTOR_CACHE_DIR must be a folder that can be"
    " written, and the C++ compiler must find Python's headers (python3-dev)"
)


@dataclass(frozen=True)
class Diagnosis:
    """One line of the report; ``advice`` is empty if nothing need be done."""

    name: str
    value: str
    state: Literal["ok", "warn", "fail"]
    advice: str = ""


def diagnose(results: Path, data_dir: Path | None, compiles: bool = False) -> list[Diagnosis]:
    """Examine the machine; ``codingbench run`` cannot work if a diagnosis has the state "fail".

    Args:
        results: the folder of the results.
        data_dir: the folder of the data sets; None for the default.
        compiles: compile and run a neuron, too, which takes seconds.
    """
    return [
        Diagnosis("python", platform.python_version(), "ok"),
        *(_version(package) for package in PACKAGES),
        *_torch(),
        *_compiler(compiles),
        _writable(results),
        *_shared_memory(),
        _disk("free disk for results", results),
        _data_folder(data_dir),
        _disk("free disk for data sets", data_folder(data_dir) or cache_folder()),
        *_datasets(data_dir),
        Diagnosis("decoded images", decoded.summary(), "ok"),
    ]


def _version(package: str) -> Diagnosis:
    try:
        return Diagnosis(package, importlib.metadata.version(package), "ok")
    except importlib.metadata.PackageNotFoundError:
        return Diagnosis(package, "not installed", "fail", f"pip install {package}")


def _torch() -> Iterator[Diagnosis]:
    """Check that torch and torchvision can be imported, and list the devices that torch sees."""
    answers, reason = _probe(_PROBE)
    if not answers:
        yield Diagnosis("torch imports", reason, "fail", "reinstall torch")
        return
    yield Diagnosis("torch imports", "yes", "ok")
    if True in answers:
        yield Diagnosis("torchvision imports", "yes", "ok")
    else:
        yield Diagnosis(
            "torchvision imports",
            reason,
            "warn",
            "reinstall torch and torchvision together from the same package index;"
            " until then, data sets cannot be downloaded or read from archives",
        )
    yield from _devices(answers[0])


def _probe(script: str) -> tuple[list[Any], str]:
    """Run a probe; return what it printed before it ended, and its last error message."""
    command = [sys.executable, "-c", script]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], str(error)
    lines = [line for line in done.stdout.splitlines() if line.startswith("probe:")]
    answers = [json.loads(line.removeprefix("probe:")) for line in lines]
    errors = done.stderr.strip().splitlines()
    return answers, errors[-1] if errors else f"ended with status {done.returncode}"


def _devices(found: dict[str, Any]) -> Iterator[Diagnosis]:
    for index, (name, memory) in enumerate(found["cuda"]):
        yield Diagnosis(f"cuda:{index}", f"{name}, {memory / 2**30:.0f} GiB", "ok")
    if found["cuda"]:
        yield _neurons()
    if found["mps"]:
        yield Diagnosis("mps", "available", "ok")
    if not found["cuda"]:
        yield Diagnosis("cuda", "none seen by torch", "ok")
    if found.get("cuda_build") and not found["cuda"] and not _has_nvidia_driver():
        yield _needless_cuda()
    yield Diagnosis("cpu", f"{os.cpu_count()} cores, {found['threads']} torch threads", "ok")


def _has_nvidia_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()


def _needless_cuda() -> Diagnosis:
    """Tell how large the packages are that only a machine with a GPU of NVIDIA needs."""
    packages = importlib.metadata.distributions()
    names = ((package, package.metadata["Name"] or "") for package in packages)
    of_cuda = (package for package, name in names if name.startswith(_OF_CUDA))
    size = sum(file.size or 0 for package in of_cuda for file in package.files or ())
    advice = "to save this space, install the CPU build of torch and torchvision: see pytorch.org"
    return Diagnosis("CUDA's libraries", f"{size / 1e9:.1f} GB, unused without a GPU", "ok", advice)


def _neurons() -> Diagnosis:
    """Run a neuron on every CUDA device; tell which implementation it takes there."""
    answers, error = _probe(_NEURONS)
    reasons = [
        answer["neurons"] for answer in answers if isinstance(answer, dict) and "neurons" in answer
    ]
    if reasons == [[]]:
        value = "fused Triton kernels, channels-last, CUDA graphs"
        return Diagnosis("neurons on cuda", value, "ok")
    reason = reasons[0][-1].removeprefix("neurons run without Triton: ") if reasons else error
    advice = "training works but is slower; Triton must be installed and needs a C compiler"
    value = f"single operations, channels-last, CUDA graphs: {reason}"
    return Diagnosis("neurons on cuda", value, "warn", advice)


def _compiler(compiles: bool) -> Iterator[Diagnosis]:
    """Check the compiler of neurons, and with ``compiles`` also a neuron, which takes seconds."""
    names = (os.environ.get("CXX"), "g++", "clang++", "c++", "cl")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if not found:
        advice = "install g++ or clang++ to use --compile; everything else works without it"
        yield Diagnosis("C++ compiler", "none", "warn", advice)
        return
    yield _compiled() if compiles else _library(found)


def _library(compiler: str) -> Diagnosis:
    """Build what torch's compiler builds of a neuron: a library with Python's headers."""
    folder = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.gettempdir())
    reason = _not_writable(folder) or _not_built(compiler)
    if not reason:
        value = f"{compiler} works; --compile compiles a neuron, too"
        return Diagnosis("C++ compiler", value, "ok")
    return Diagnosis("C++ compiler", f"{compiler}: {reason}", "warn", _COMPILER_ADVICE)


def _not_built(compiler: str) -> str:
    """Return why a small library cannot be built; an empty text if it can."""
    if os.name == "nt":  # where compilers have other options
        return ""
    openmp = ["-fopenmp"] if platform.system() == "Linux" else []
    headers = sysconfig.get_paths()["include"]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text("#include <Python.h>\n#include <cmath>\nint probe() { return 1; }\n")
        options = ["-shared", "-fPIC", *openmp, f"-I{headers}", "-o", f"{folder}/probe.so"]
        try:
            done = subprocess.run(
                [compiler, *options, str(source)], capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    said = done.stderr.strip().splitlines()
    failed = f"ended with status {done.returncode}"
    return next((line for line in said if "error" in line), failed) if done.returncode else ""


def _compiled() -> Diagnosis:
    """Compile a neuron on the CPU, and run it forwards and backwards."""
    answers, error = _probe(_COMPILED)
    found = next((a for a in answers if isinstance(a, dict) and "compiled" in a), None)
    if found and found["compiled"] == "compiled":
        return Diagnosis("compiled neurons", "compile and run", "ok")
    reasons = found["reasons"] if found else []
    reason = reasons[0].removeprefix("neurons run uncompiled: ") if reasons else error
    return Diagnosis("compiled neurons", reason, "warn", _COMPILER_ADVICE)


def _existing(path: Path) -> Path:
    """Return the path itself, or the nearest folder above it that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def _writable(results: Path) -> Diagnosis:
    if reason := _not_writable(results):
        return Diagnosis("results folder", reason, "fail", "use another folder: --results")
    return Diagnosis("results folder", f"{results} is writable", "ok")


def _not_writable(folder: Path) -> str:
    """Return why no file can be written into a folder, or made there; an empty text if it can."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return ""
    except OSError as error:
        return f"{folder}: {error.strerror}"


def _disk(name: str, path: Path) -> Diagnosis:
    free_gb = shutil.disk_usage(_existing(path)).free / 1e9
    state: Literal["ok", "warn", "fail"] = "ok"
    if free_gb < LITTLE_DISK_GB:
        state = "warn" if free_gb >= NO_DISK_GB else "fail"
    advice = "" if state == "ok" else f"free some space at {path}, or use another folder"
    return Diagnosis(name, f"{free_gb:.1f} GB at {path}", state, advice)


def _shared_memory() -> Iterator[Diagnosis]:
    """Tell whether decoders of photographs have room for their batches."""
    found = shared_memory()
    if found is None:
        return
    value = f"{found.free / 1e9:.2f} GB free of {found.total / 1e9:.2f} GB"
    if found.free >= LITTLE_SHARED_GB * 1e9:
        yield Diagnosis(str(SHARED_MEMORY), value, "ok")
        return
    advice = "large photographs need more, or --decoders 0; docker run has the option --shm-size=4g"
    yield Diagnosis(str(SHARED_MEMORY), value, "warn", advice)


def _data_folder(data_dir: Path | None) -> Diagnosis:
    """Say which folder of data sets is searched first, and who named it."""
    folder = data_folder(data_dir)
    if folder is None:
        value, who = str(cache_folder()), f"neither --data-dir nor {DATA_FOLDER} names another"
    else:
        value, who = str(folder), "--data-dir" if data_dir else DATA_FOLDER
    if folder and not folder.is_dir():
        return Diagnosis("folder of data sets", f"{value} ({who})", "warn", "make this folder")
    return Diagnosis("folder of data sets", f"{value} ({who})", "ok")


def _datasets(data_dir: Path | None) -> Iterator[Diagnosis]:
    """Yield one line for all data sets that are present, and one for each that is incomplete."""
    found = []
    for name in catalogue():
        try:
            source = find(name, data_dir)
        except DatasetError as error:
            yield Diagnosis(
                name, str(error), "warn", f"add the missing files of {name}, or remove the others"
            )
            continue
        if source:
            found.append(f"{name} ({source.form})")
        elif name == DEFAULT_DATASET:
            yield Diagnosis(name, "its files are missing", "fail", "reinstall codingbench")
    advice = "" if len(found) == len(catalogue()) else "for others: codingbench data fetch NAME"
    yield Diagnosis("data sets", ", ".join(found) or "none", "ok", advice)
