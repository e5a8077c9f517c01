"""``codingbench doctor`` reports problems of the machine and survives them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from codingbench import doctor
from codingbench.cli.doctor import doctor as doctor_command
from codingbench.datasets import files
from codingbench.doctor import Diagnosis, diagnose
from codingbench.runtime.shared_memory import SharedMemory

NMS = "RuntimeError: operator torchvision::nms does not exist"
TORCH = 'probe:{"cuda": [["Card", 8589934592]], "mps": false, "threads": 3}\n'


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(doctor, "cache_folder", lambda: folder)
    monkeypatch.setattr(files, "cache_folder", lambda: folder)
    return folder


def answer(monkeypatch: pytest.MonkeyPatch, stdout: str, stderr: str = "") -> None:
    """Replace what the probe prints."""

    def run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(command, 0 if not stderr else 1, stdout, stderr)

    monkeypatch.setattr(subprocess, "run", run)


def findings(results: Path, data_dir: Path | None = None) -> dict[str, Diagnosis]:
    return {finding.name: finding for finding in diagnose(results, data_dir)}


def test_this_machine_is_sound(tmp_path: Path) -> None:
    found = findings(tmp_path / "results")
    assert [f for f in found.values() if f.state == "fail"] == []
    assert found["torch imports"].value == found["torchvision imports"].value == "yes"
    assert "torch threads" in found["cpu"].value
    assert "fashion_mini (embedded)" in found["data sets"].value
    assert not (tmp_path / "results").exists()


def test_device_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, TORCH + "probe:true\n")
    found = findings(tmp_path)
    assert found["cuda:0"].value == "Card, 8 GiB"
    assert found["cpu"].value.endswith("3 torch threads")


@pytest.mark.parametrize(
    "reasons, state, value",
    [
        ("[]", "ok", "fused Triton kernels, channels-last, CUDA graphs"),
        (
            '["neurons run without Triton: RuntimeError: no C compiler"]',
            "warn",
            "single operations, channels-last, CUDA graphs: RuntimeError: no C compiler",
        ),
        ('["Triton is not installed"]', "warn", "CUDA graphs: Triton is not installed"),
    ],
)
def test_what_runs_the_neurons_of_a_gpu_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reasons: str, state: str, value: str
) -> None:
    answer(monkeypatch, TORCH + "probe:true\n" + f'probe:{{"neurons": {reasons}}}\n')
    found = findings(tmp_path)["neurons on cuda"]
    assert found.state == state and found.value.endswith(value)
    assert ("C compiler" in found.advice) == (state == "warn")


def test_broken_torchvision_is_a_warning_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, TORCH, f"Traceback (most recent call last):\n{NMS}\n")
    found = findings(tmp_path)
    assert found["torchvision imports"].state == "warn"
    assert found["torchvision imports"].value == NMS
    assert "same package index" in found["torchvision imports"].advice
    assert found["torch imports"].state == "ok"


def test_broken_torch_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "", "ImportError: libtorch.so: cannot open\n")
    found = findings(tmp_path)
    assert found["torch imports"].state == "fail"
    assert "libtorch.so" in found["torch imports"].value
    assert "fashion_mini (embedded)" in found["data sets"].value


def test_probe_survives_a_torch_that_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert findings(tmp_path)["torch imports"].state == "fail"


def test_missing_package_fails_with_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, TORCH + "probe:true\n")
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))
    found = findings(tmp_path)["no-such-package"]
    assert (found.state, found.advice) == ("fail", "pip install no-such-package")


def test_missing_compiler_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, TORCH + "probe:true\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert findings(tmp_path)["C++ compiler"].state == "warn"


def test_the_compiler_builds_a_library_with_the_headers_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (works,) = doctor._compiler(False)
    assert works.state == "ok" and "--compile" in works.value
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    (failed,) = doctor._compiler(False)
    assert failed.state == "warn" and "Python.h" in failed.value and "python3-dev" in failed.advice


def test_a_cache_of_compiled_neurons_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file"))
    (found,) = doctor._compiler(False)
    assert found.state == "warn" and str(tmp_path / "file") in found.value


@pytest.mark.parametrize(
    ("build", "driver", "is_told"), [('"13.0"', False, True), ('"13.0"', True, False),
                                     ("null", False, False)]
)  # fmt: skip
def test_a_machine_without_a_gpu_is_told_of_the_libraries_of_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, driver: bool, is_told: bool
) -> None:
    probe = '{"cuda": [], "mps": false, "threads": 1, "cuda_build": %s}' % build  # noqa: UP031
    answer(monkeypatch, f"probe:{probe}\nprobe:true\n")
    monkeypatch.setattr(doctor, "_has_nvidia_driver", lambda: driver)
    found = findings(tmp_path)
    assert ("CUDA's libraries" in found) == is_told
    if is_told:
        assert found["CUDA's libraries"].state == "ok"
        assert "CPU build of torch" in found["CUDA's libraries"].advice


@pytest.mark.thorough
@pytest.mark.parametrize("folder", ["file", "file/below", "new"])
def test_whether_neurons_compile_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / folder))
    found = doctor._compiled()
    if folder == "new":
        assert (found.value, found.state) == ("compile and run", "ok")
        assert list((tmp_path / folder).iterdir())
    else:
        assert found.state == "warn" and str(tmp_path / "file") in found.value
        assert "TORCHINDUCTOR_CACHE_DIR" in found.advice and "Set TORCH" not in found.value


@pytest.mark.parametrize(("free", "state"), [(10**7, "fail"), (10**9, "warn"), (10**10, "ok")])
def test_little_disk_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    answer(monkeypatch, TORCH + "probe:true\n")
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert findings(tmp_path)["free disk for results"].state == state


@pytest.mark.parametrize(("free", "state"), [(64 * 2**20, "warn"), (8 * 10**9, "ok")])
def test_little_shared_memory_is_reported_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    answer(monkeypatch, TORCH + "probe:true\n")
    monkeypatch.setattr(doctor, "shared_memory", lambda: SharedMemory(8 * 10**9, free))
    found = findings(tmp_path)["/dev/shm"]
    assert found.state == state and found.value.endswith("GB free of 8.00 GB")
    assert ("--decoders 0" in found.advice) == (state == "warn")
    monkeypatch.setattr(doctor, "shared_memory", lambda: None)
    assert "/dev/shm" not in findings(tmp_path)


def test_results_that_are_a_file_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, TORCH + "probe:true\n")
    (tmp_path / "results").write_text("")
    assert findings(tmp_path / "results")["results folder"].state == "fail"


def test_incomplete_data_set_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, TORCH + "probe:true\n")
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "test-00000-of-00001.parquet").write_bytes(b"")
    found = findings(tmp_path, data_dir=tmp_path)["cifar10"]
    assert found.state == "warn" and "train-00000-of-00001.parquet" in found.value


@pytest.mark.parametrize(("stderr", "status"), [("", 0), ("ImportError: no torch\n", 1)])
def test_command_leaves_with_1_if_something_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, status: int
) -> None:
    answer(monkeypatch, "" if stderr else TORCH + "probe:true\n", stderr)
    app = typer.Typer()
    app.command()(doctor_command)
    result = CliRunner().invoke(app, ["--results", str(tmp_path)])
    assert result.exit_code == status
    assert "torch imports" in result.stdout


def test_doctor_itself_imports_no_torch() -> None:
    code = "import sys, codingbench.cli.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
