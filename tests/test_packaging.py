"""The installed package: its modules, the files of a wheel, and a quick start."""

import importlib
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGIN_FOLDERS = ("encoders", "backbones")
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def import_path(path: Path) -> str:
    """Return the path of an installed file of the checkout."""
    inside = path.relative_to(ROOT).as_posix()
    return inside if inside.startswith("codingbench/") else f"codingbench/{inside}"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel of a checkout that also holds results, and unpack it."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    checkout = (
        folder / "checkout"
    )  # a copy, because building leaves files behind and includes old ones
    no_caches = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("codingbench", "tests", *PLUGIN_FOLDERS):
        shutil.copytree(ROOT / name, checkout / name, ignore=no_caches)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, checkout)
    (checkout / "results" / "cells").mkdir(parents=True)
    (checkout / "results" / "cells" / "0123abcd.parquet").write_bytes(b"of a run")
    build = "import setuptools.build_meta as backend; backend.build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=checkout, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_pyproject_lists_every_package_on_disk() -> None:
    inits = [
        init
        for folder in ("codingbench", *PLUGIN_FOLDERS)
        for init in (ROOT / folder).rglob("__init__.py")
    ]
    on_disk = {str(Path(import_path(init)).parent).replace("/", ".") for init in inits}
    assert sorted(SETUPTOOLS["packages"]) == sorted(on_disk)


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS)
def test_plugins_of_a_checkout_come_from_its_top_level_folder(folder: str) -> None:
    package = importlib.import_module(f"codingbench.{folder}")
    assert [Path(path).resolve() for path in package.__path__] == [ROOT / folder]


def test_a_wheel_holds_every_file_of_the_packages_and_nothing_else(unpacked: Path) -> None:
    sources = [
        path
        for folder in ("codingbench", *PLUGIN_FOLDERS)
        for path in (ROOT / folder).rglob("*")
        if is_source(path)
    ]
    held = {
        path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if is_source(path)
    }
    packaged = {name for name in held if ".dist-info/" not in name}
    assert packaged == {import_path(path) for path in sources}


@pytest.mark.parametrize(
    "name",
    [
        "py.typed",
        "encoders/gac.py",
        "backbones/csnn.py",
        "recipes/quick.toml",
        "datasets/fashion_mini/train.parquet",
        "datasets/fashion_mini/test.parquet",
        "datasets/fashion_mini/LICENSE",
    ],
)
def test_a_wheel_holds_the_file(unpacked: Path, name: str) -> None:
    assert (unpacked / "codingbench" / name).is_file()


def test_a_wheel_carries_both_licences(unpacked: Path) -> None:
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    lines = metadata.read_text().splitlines()
    for name in ("LICENSE", "codingbench/datasets/fashion_mini/LICENSE"):
        assert f"License-File: {name}" in lines
        assert (metadata.parent / "licenses" / name).read_text() == (ROOT / name).read_text()


def test_a_wheel_works_without_the_checkout(unpacked: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(unpacked)!r})\n"
        "import codingbench.encoders, codingbench.backbones\n"
        "from codingbench.recipes import recipe as recipes\n"
        "from codingbench.datasets import locate\n"
        "from codingbench.registry import ENCODERS\n"
        "recipes.load_recipe('quick')\n"
        "print(ENCODERS.get('gac').__module__, sys.modules['codingbench.encoders.gac'].__file__)\n"
        "print(locate('fashion_mini', None).folder)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=unpacked.parent, capture_output=True, text=True
    )
    assert run.stdout.splitlines() == [
        f"codingbench.encoders.gac {unpacked / 'codingbench' / 'encoders' / 'gac.py'}",
        str(unpacked / "codingbench" / "datasets" / "fashion_mini"),
    ], run.stderr


def test_git_ignores_the_results_of_runs_but_not_the_reference() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and its folder")
    kept = ["results/README.md", "results/reference/cells/0123abcd.parquet"]
    ignored = ["results/cells/0123abcd.parquet", "results/steps", "results/.probe-1"]
    run = subprocess.run(
        ["git", "check-ignore", *kept, *ignored], cwd=ROOT, capture_output=True, text=True
    )
    assert run.stdout.splitlines() == ignored


def test_help_imports_neither_torch_nor_pandas() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "codingbench", "--help"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert {"typer", "codingbench.cli.run"} <= imported
    assert not {"torch", "torchvision", "snntorch", "pandas", "pyarrow"} & imported
