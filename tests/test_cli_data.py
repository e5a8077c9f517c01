"""``codingbench data``: list and import data sets."""

import gzip
import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from codingbench import datasets
from codingbench.cli.data import app
from codingbench.datasets import files
from codingbench.errors import DatasetError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(files, "cache_folder", lambda: folder)
    return folder


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Write ten images per split, one of each class."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    for start in ("train", "t10k"):
        images = struct.pack(">4I", 0x803, 10, 28, 28) + bytes(10 * 28 * 28)
        labels = struct.pack(">2I", 0x801, 10) + bytes(range(10))
        (folder / f"{start}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{start}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal(result: Result) -> str:
    assert isinstance(result.exception, DatasetError)
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_list_names_every_set_and_the_fingerprint_of_those_found() -> None:
    result = run()
    assert result.exit_code == 0
    for name in datasets.catalogue():
        assert name in result.stdout
    assert datasets.locate("fashion_mini", None).fingerprint() in result.stdout
    assert "not found in" in result.stdout


def test_list_shows_what_is_wrong_with_an_incomplete_set(mnist: Path) -> None:
    (mnist / "train-labels-idx1-ubyte.gz").unlink()
    result = run("--data-dir", mnist)
    assert result.exit_code == 0
    assert "missing" in result.stdout


@pytest.mark.parametrize("before", [True, False])
def test_imported_set_is_found_with_the_same_fingerprint(
    mnist: Path, tmp_path: Path, before: bool
) -> None:
    option = ["--data-dir", str(tmp_path / "kept")]
    command = ["import", str(mnist), "--as", "mnist"]
    result = run(*option, *command) if before else run(*command, *option)
    assert result.exit_code == 0, result.exception
    kept = datasets.locate("mnist", tmp_path / "kept")
    assert kept.folder == tmp_path / "kept" / "mnist"
    assert kept.fingerprint() == datasets.locate("mnist", mnist).fingerprint()
    assert kept.fingerprint() in result.stdout


def test_import_without_data_dir_goes_to_the_cache(mnist: Path, cache: Path) -> None:
    assert run("import", mnist, "--as", "mnist").exit_code == 0
    assert len(list((cache / "mnist").iterdir())) == 4


def test_broken_files_are_refused_and_nothing_is_left(mnist: Path, cache: Path) -> None:
    path = mnist / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-3])
    assert str(path) in refusal(run("import", mnist, "--as", "mnist"))
    assert not cache.exists()


def test_failure_while_copying_leaves_nothing(
    mnist: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    assert "No space left" in refusal(run("import", mnist, "--as", "mnist"))
    assert list(cache.iterdir()) == []


def test_import_never_overwrites(mnist: Path, cache: Path) -> None:
    (cache / "mnist").mkdir(parents=True)
    (cache / "mnist" / "notes.txt").write_text("mine")
    assert "not empty" in refusal(run("import", mnist, "--as", "mnist"))
    assert (cache / "mnist" / "notes.txt").read_text() == "mine"


def test_import_of_a_folder_without_the_set_says_what_is_expected(tmp_path: Path) -> None:
    message = refusal(run("import", tmp_path, "--as", "cifar10"))
    assert "cifar-10-python.tar.gz" in message


def test_import_of_a_single_idx_file_asks_for_the_folder(mnist: Path) -> None:
    path = mnist / "t10k-images-idx3-ubyte.gz"
    assert "expected the folder" in refusal(run("import", path, "--as", "mnist"))


def test_import_of_a_truncated_tar_is_refused(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "renamed.tar.gz"
    path.write_bytes(gzip.compress(bytes(10_000))[:-5])
    assert str(path) in refusal(run("import", path, "--as", "cifar10"))
    assert not cache.exists()


def test_embedded_set_is_not_imported(mnist: Path) -> None:
    assert "part of codingbench" in refusal(run("import", mnist, "--as", "fashion_mini"))


def test_fetch_of_a_set_that_is_there_only_reports_it(mnist: Path) -> None:
    result = run("fetch", "mnist", "--data-dir", mnist)
    assert result.exit_code == 0
    assert str(mnist) in result.stdout


def test_a_refused_download_prints_nothing_before_its_error() -> None:
    result = run("fetch", "foo")
    assert str(result.exception).startswith("unknown data set 'foo'")
    assert result.output == ""
