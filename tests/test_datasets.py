"""Data sets: subsets, every form on disk, and the errors for broken files.

The pixels of a synthetic image are its number, so that a confused row is noticed.
"""

import gzip
import hashlib
import http.server
import io
import pickle
import re
import runpy
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision.datasets
from PIL import Image

from codingbench import datasets
from codingbench.datasets import decoding, download, files, find, loading, locate
from codingbench.datasets.catalogue import ARCHIVES
from codingbench.errors import CodingbenchError, DatasetError, SpecError
from codingbench.views.downloads import DownloadBars

REAL = Path(__file__).parents[2] / "shared" / "datasets"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache folder and no system folder."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(files, "cache_folder", lambda: folder)
    archive = ARCHIVES["fashion_mnist"]
    plain = {**vars(archive), "system_folder": None}
    monkeypatch.setitem(ARCHIVES, "fashion_mnist", type(archive)(**plain))
    return folder


def png(number: int, mode: str = "RGB", size: tuple[int, int] = (32, 32)) -> bytes:
    """Return a PNG file whose colour is its number."""
    colour: int | tuple[int, int, int] = number if mode == "L" else (number, 0, 255 - number)
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


def write_shard(
    path: Path,
    labels: list[int],
    contents: list[bytes] | None = None,
    columns: tuple[str, str] = ("img", "label"),
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    contents = contents or [png(number) for number in range(len(labels))]
    images = [{"bytes": content, "path": None} for content in contents]
    pq.write_table(pa.table({columns[0]: images, columns[1]: labels}), path, row_group_size=7)


def write_cifar10(folder: Path, train: list[int] | None = None) -> Path:
    write_shard(folder / "train-00000-of-00001.parquet", train or list(range(10)) * 2)
    write_shard(folder / "test-00000-of-00001.parquet", list(range(10)))
    return folder


def idx(*sizes: int, content: bytes) -> bytes:
    return struct.pack(f">4B{len(sizes)}I", 0, 0, 8, len(sizes), *sizes) + content


def write_idx(folder: Path, compress: bool) -> Path:
    """Write 20 training and 10 test images; each pixel is the number of the image."""
    folder.mkdir(parents=True, exist_ok=True)
    for start, size in (("train", 20), ("t10k", 10)):
        pixels = np.repeat(np.arange(size, dtype=np.uint8), 28 * 28).tobytes()
        files = {
            f"{start}-images-idx3-ubyte": idx(size, 28, 28, content=pixels),
            f"{start}-labels-idx1-ubyte": idx(size, content=bytes(i % 10 for i in range(size))),
        }
        for name, raw in files.items():
            path = folder / (f"{name}.gz" if compress else name)
            path.write_bytes(gzip.compress(raw, mtime=0) if compress else raw)
    return folder


def cifar100_batch(size: int) -> bytes:
    pixels = np.repeat(np.arange(size, dtype=np.uint8), 3072).reshape(size, 3072)
    batch = {"data": pixels, "fine_labels": list(range(100)) * (size // 100)}
    return pickle.dumps(batch, protocol=2)


@pytest.fixture
def cifar100(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return batches of 200 and 100 images, with their md5 sums in place of the real ones."""
    members = {"train": cifar100_batch(200), "test": cifar100_batch(100)}
    for name, raw in members.items():
        pair = [name, hashlib.md5(raw).hexdigest()]
        monkeypatch.setattr(torchvision.datasets.CIFAR100, f"{name}_list", [pair])
    return members


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in members.items():
            header = tarfile.TarInfo(f"cifar-100-python/{name}")
            header.size = len(raw)
            archive.addfile(header, io.BytesIO(raw))
    return path


def refusal(call: Callable[[], Any], kind: type[CodingbenchError] = DatasetError) -> str:
    """Return the one-line message of the error."""
    with pytest.raises(kind) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- the catalogue and the embedded set -------------------------------------------------------


def test_unknown_name_is_refused_with_the_nearest() -> None:
    message = refusal(lambda: datasets.get_info("cifar-10"), SpecError)
    assert "did you mean 'cifar10'" in message


def test_listing_and_locating_import_no_torch() -> None:
    code = (
        "import sys; from codingbench import datasets as d; d.catalogue();"
        "d.locate('fashion_mini', None).fingerprint(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_parquet_is_read_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    assert len(datasets.load(locate("fashion_mini", None), "test", 10).labels) == 10


@pytest.mark.parametrize(("split", "size"), [("train", 6000), ("test", 1000)])
def test_embedded_set_is_whole_and_balanced(split: Any, size: int) -> None:
    loaded = datasets.load(locate("fashion_mini", None), split)
    assert loaded.images.shape == (size, 1, 28, 28) and loaded.images.dtype == torch.uint8
    assert loaded.labels.bincount().tolist() == [size // 10] * 10


def test_embedded_set_has_the_stated_mean_and_std() -> None:
    source = locate("fashion_mini", None)
    pixels = datasets.load(source, "train").images.double() / 255
    assert source.info.mean[0] == pytest.approx(pixels.mean().item(), abs=5e-5)
    assert source.info.std[0] == pytest.approx(pixels.std(correction=0).item(), abs=5e-5)


def test_embedded_images_are_all_different() -> None:
    images = datasets.load(locate("fashion_mini", None), "train").images
    assert len({image.numpy().tobytes() for image in images}) == 6000


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_embedded_set_is_what_its_script_makes(tmp_path: Path) -> None:
    folder = locate("fashion_mini", None).folder
    runpy.run_path(str(folder / "make.py"))["make"](DEBIAN, tmp_path)
    for name in ("train.parquet", "test.parquet"):
        # pixels, because the bytes depend on the versions of Pillow and pyarrow
        made, kept = pq.read_table(tmp_path / name), pq.read_table(folder / name)
        assert made["label"] == kept["label"]
        for new, old in zip(made["image"].to_pylist(), kept["image"].to_pylist(), strict=True):
            assert new["path"] == old["path"]
            pixels = decoding.decode_image(new["bytes"], (1, 28, 28))
            assert np.array_equal(pixels, decoding.decode_image(old["bytes"], (1, 28, 28)))


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_embedded_images_are_the_rows_that_they_name() -> None:
    rows = pq.read_table(locate("fashion_mini", None).folder / "test.parquet").to_pylist()[:50]
    pixels = gzip.decompress((DEBIAN / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((DEBIAN / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    for row in rows:
        at = int(row["image"]["path"].removeprefix("t10k/"))
        image = Image.open(io.BytesIO(row["image"]["bytes"]))
        assert image.tobytes() == pixels[at * 784 : (at + 1) * 784]
        assert row["label"] == labels[at]


def test_listing_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from codingbench.datasets import dataset_names; dataset_names(); "
        "print([name for name in ('torch', 'numpy', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- subsets ----------------------------------------------------------------------------------


def test_subset_takes_one_of_each_class_in_turn(tmp_path: Path) -> None:
    # rows 0..3 are of class 9, 8, 9, 8; the rest are 0..7 and 0..7
    train = [9, 8, 9, 8, *range(8), *range(8)]
    source = locate("cifar10", write_cifar10(tmp_path / "cifar10", train).parent)
    loaded = datasets.load(source, "train", samples=12)
    assert loaded.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    # the red channel holds the row
    assert loaded.images[:, 0, 0, 0].tolist() == [4, 5, 6, 7, 8, 9, 10, 11, 1, 0, 12, 13]
    assert loaded.images[:, 2, 31, 31].tolist() == [
        255 - row for row in loaded.images[:, 0, 0, 0].tolist()
    ]


def test_smaller_subset_starts_the_larger_and_the_whole() -> None:
    source = locate("fashion_mini", None)
    small, large, whole = (datasets.load(source, "test", n) for n in (37, 400, None))
    assert torch.equal(small.images, large.images[:37])
    assert torch.equal(large.images, whole.images[:400])
    assert torch.equal(large.labels, whole.labels[:400])


def test_only_the_chosen_rows_are_decoded(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path / "cifar10")
    contents = [png(number) for number in range(10)] + [b"not a png"] * 10
    write_shard(folder / "train-00000-of-00001.parquet", list(range(10)) * 2, contents)
    assert datasets.load(locate("cifar10", tmp_path), "train", 10).images.shape[0] == 10


def test_more_samples_than_there_are_is_refused_with_both_numbers() -> None:
    message = refusal(lambda: datasets.load(locate("fashion_mini", None), "test", 1001))
    assert "1001" in message and "1000" in message


def test_no_sample_is_refused() -> None:
    source = locate("fashion_mini", None)
    assert "got 0" in refusal(lambda: datasets.load(source, "test", 0), SpecError)


# --- where files are found --------------------------------------------------------------------


def test_data_dir_goes_before_the_cache_and_falls_back_to_it(tmp_path: Path, cache: Path) -> None:
    write_cifar10(cache / "cifar10")
    assert locate("cifar10", tmp_path / "other").folder == cache / "cifar10"
    write_cifar10(tmp_path / "other" / "cifar10")
    assert locate("cifar10", tmp_path / "other").folder == tmp_path / "other" / "cifar10"


def test_files_directly_in_data_dir_are_found(tmp_path: Path) -> None:
    assert locate("cifar10", write_cifar10(tmp_path / "mine")).folder == tmp_path / "mine"


def test_folder_named_after_another_set_is_not_taken(tmp_path: Path) -> None:
    write_idx(tmp_path / "fashion-mnist", compress=False)
    assert find("mnist", tmp_path / "fashion-mnist") is None
    assert find("fashion_mnist", tmp_path / "fashion-mnist") is not None


def test_absent_set_is_refused_with_remedy_and_places(tmp_path: Path, cache: Path) -> None:
    message = refusal(lambda: locate("cifar100", tmp_path / "here"))
    assert "codingbench data fetch cifar100" in message
    assert "cifar-100-python.tar.gz" in message
    assert str(tmp_path / "here" / "cifar100") in message and str(cache) in message


def test_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path / "cifar10")
    (folder / "train-00000-of-00001.parquet").rename(folder / "train-00000-of-00002.parquet")
    assert "train-00001-of-00002.parquet" in refusal(lambda: locate("cifar10", tmp_path))


def test_missing_split_is_named(tmp_path: Path) -> None:
    (write_cifar10(tmp_path / "cifar10") / "test-00000-of-00001.parquet").unlink()
    assert "test-00000-of-00001.parquet" in refusal(lambda: locate("cifar10", tmp_path))


def test_shards_of_two_series_are_refused(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path / "cifar10")
    write_shard(folder / "train-00000-of-00002.parquet", [0])
    assert "train-00000-of-00002.parquet" in refusal(lambda: locate("cifar10", tmp_path))


def test_missing_idx_file_is_named(tmp_path: Path) -> None:
    (write_idx(tmp_path / "mnist", compress=True) / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "t10k-labels-idx1-ubyte" in refusal(lambda: locate("mnist", tmp_path))


# --- fingerprints -----------------------------------------------------------------------------


def test_fingerprint_survives_a_move_but_not_a_changed_byte(tmp_path: Path) -> None:
    before = locate("mnist", write_idx(tmp_path / "a", compress=False)).fingerprint()
    moved = write_idx(tmp_path / "b", compress=False)
    assert len(before) == 16 and int(before, 16) >= 0
    assert locate("mnist", moved).fingerprint() == before
    labels = moved / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\0")
    assert locate("mnist", moved).fingerprint() != before


def test_fingerprint_tells_the_splits_apart(tmp_path: Path) -> None:
    source = locate("mnist", write_idx(tmp_path / "a", compress=False))
    swapped = {"train": source.files["test"], "test": source.files["train"]}
    assert datasets.Source(source.info, source.form, swapped).fingerprint() != source.fingerprint()


# --- idx and CIFAR archives -------------------------------------------------------------------


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("place", ["mnist", ".", "MNIST/raw", "mnist/MNIST/raw"])
def test_idx_files_are_read(tmp_path: Path, place: str, compress: bool) -> None:
    write_idx(tmp_path / "dir" / place, compress)
    source = locate("mnist", tmp_path / "dir")
    loaded = datasets.load(source, "train")
    assert source.form == "archive"
    assert loaded.images.shape == (20, 1, 28, 28)
    assert loaded.images.flatten(1).float().mean(1).tolist() == list(range(20))
    assert loaded.labels.tolist() == list(range(10)) * 2


@pytest.mark.parametrize("compress", [False, True])
def test_truncated_idx_is_named(tmp_path: Path, compress: bool) -> None:
    folder = write_idx(tmp_path / "mnist", compress)
    path = next(folder.glob("train-images*"))
    path.write_bytes(path.read_bytes()[:-9])
    assert str(path) in refusal(lambda: datasets.load(locate("mnist", tmp_path), "train"))


def test_idx_of_other_numbers_or_sizes_is_refused(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "mnist", compress=False)
    source = locate("mnist", tmp_path)
    images, labels = (folder / name for name in IDX_NAMES)
    labels.write_bytes(idx(19, content=bytes(19)))
    assert "20 images" in refusal(lambda: datasets.load(source, "train"))
    images.write_bytes(idx(1, 27, 28, content=bytes(27 * 28)))
    assert "got 27x28" in refusal(lambda: datasets.load(source, "train"))
    images.write_bytes(b"\0\0\x0d\x03" + images.read_bytes()[4:])  # type code of floats
    assert "expected an idx file" in refusal(lambda: datasets.load(source, "train"))


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_debian_package_is_found_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = ARCHIVES["fashion_mnist"]
    there = {**vars(archive), "system_folder": DEBIAN}
    monkeypatch.setitem(ARCHIVES, "fashion_mnist", type(archive)(**there))
    source = locate("fashion_mnist", None)
    assert source.folder == DEBIAN
    pixels = datasets.load(source, "train").images
    assert pixels.shape == (60_000, 1, 28, 28)
    assert (pixels / 255).mean().item() == pytest.approx(source.info.mean[0], abs=1e-4)


@pytest.mark.parametrize("form", ["tar", "loose"])
def test_cifar_archive_is_read(tmp_path: Path, cifar100: dict[str, bytes], form: str) -> None:
    if form == "tar":
        write_tar(tmp_path / "cifar-100-python.tar.gz", cifar100)
    else:
        (tmp_path / "cifar-100-python").mkdir()
        for name, raw in cifar100.items():
            (tmp_path / "cifar-100-python" / name).write_bytes(raw)
    before = sorted(tmp_path.rglob("*"))
    loaded = datasets.load(locate("cifar100", tmp_path), "train", 150)
    assert loaded.images.shape == (150, 3, 32, 32)
    assert loaded.images[:, 1, 5, 6].tolist() == list(range(150))
    assert loaded.labels.tolist() == [*range(100), *range(50)]
    assert sorted(tmp_path.rglob("*")) == before


def test_pickles_of_old_numpy_are_read_without_a_warning(
    tmp_path: Path, cifar100: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # dtype("u1", 0, 1) instead of dtype("u1", False, True), as the original files write it
    old = cifar100["test"].replace(b"\x89\x88\x87", b"K\x00K\x01\x87")
    assert old != cifar100["test"]
    pair = ["test", hashlib.md5(old).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "test_list", [pair])
    write_tar(tmp_path / "cifar-100-python.tar.gz", cifar100 | {"test": old})
    assert datasets.load(locate("cifar100", tmp_path), "test").images.shape[0] == 100


def test_truncated_tar_is_named(tmp_path: Path, cifar100: dict[str, bytes]) -> None:
    path = write_tar(tmp_path / "cifar-100-python.tar.gz", cifar100)
    path.write_bytes(path.read_bytes()[:-200])
    message = refusal(lambda: datasets.load(locate("cifar100", tmp_path), "test"))
    assert str(path) in message


def test_pickle_of_another_md5_sum_is_never_run(tmp_path: Path, cifar100: dict[str, bytes]) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.mkdir, (tmp_path / "ran",)

    members = cifar100 | {"test": pickle.dumps(Evil())}
    path = write_tar(tmp_path / "cifar-100-python.tar.gz", members)
    message = refusal(lambda: datasets.load(locate("cifar100", tmp_path), "test"))
    assert str(path) in message and "md5" in message
    assert not (tmp_path / "ran").exists()


def test_tar_without_the_batch_is_refused(tmp_path: Path, cifar100: dict[str, bytes]) -> None:
    write_tar(tmp_path / "cifar-100-python.tar.gz", {"train": cifar100["train"]})
    message = refusal(lambda: datasets.load(locate("cifar100", tmp_path), "test"))
    assert "cifar-100-python/test" in message


def test_broken_torchvision_is_explained(
    tmp_path: Path, cifar100: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "cifar-100-python.tar.gz", cifar100)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    message = refusal(lambda: datasets.load(locate("cifar100", tmp_path), "test"))
    assert "codingbench doctor" in message


# --- broken Parquet ---------------------------------------------------------------------------


def load_broken(tmp_path: Path, shard: Path) -> str:
    message = refusal(lambda: datasets.load(locate("cifar10", tmp_path), "train"))
    assert str(shard) in message or (shard.name in message and str(shard.parent) in message)
    return message


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_cifar10(tmp_path / "cifar10") / "train-00000-of-00001.parquet"


@pytest.mark.parametrize("keep", [0, 3, 500, -1])
def test_truncated_shard_is_named(tmp_path: Path, shard: Path, keep: int) -> None:
    shard.write_bytes(shard.read_bytes()[:keep])
    load_broken(tmp_path, shard)


def test_flipped_bytes_are_refused_or_harmless(tmp_path: Path, shard: Path) -> None:
    whole = shard.read_bytes()
    source = locate("cifar10", tmp_path)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        start = int(generator.integers(0, len(whole) - 8))
        damaged[start : start + 8] = generator.bytes(8)
        shard.write_bytes(damaged)
        try:
            datasets.load(source, "train")
        except DatasetError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("columns", [("picture", "label"), ("img", "class")])
def test_wrong_columns_are_named(tmp_path: Path, shard: Path, columns: tuple[str, str]) -> None:
    write_shard(shard, list(range(10)), columns=columns)
    message = load_broken(tmp_path, shard)
    assert "picture" in message or "class" in message


def test_columns_of_wrong_types_are_refused(tmp_path: Path, shard: Path) -> None:
    pq.write_table(pa.table({"img": [b"x"] * 10, "label": list(range(10))}), shard)
    assert "expected struct" in load_broken(tmp_path, shard)
    images = [{"bytes": png(0), "path": None}] * 2
    pq.write_table(pa.table({"img": images, "label": ["a", "b"]}), shard)
    assert "expected integers" in load_broken(tmp_path, shard)
    pq.write_table(pa.table({"img": images, "label": [0, None]}), shard)
    assert "1 empty" in load_broken(tmp_path, shard)


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (png(3)[:60], "row 13"),
        (b"", "expected a PNG or JPEG file, got 0 other bytes"),
        (png(3, size=(16, 32)), "16x32"),
        (png(3, mode="L"), "got L"),
    ],
)
def test_bad_image_is_named_by_file_and_row(
    tmp_path: Path, shard: Path, bad: bytes, word: str
) -> None:
    contents = [png(number) for number in range(20)]
    contents[13] = bad  # in the second row group
    write_shard(shard, list(range(10)) * 2, contents)
    message = load_broken(tmp_path, shard)
    assert "row 13" in message and word in message


def test_label_outside_the_classes_is_refused(tmp_path: Path, shard: Path) -> None:
    write_shard(shard, [*range(10), 10])
    assert "0 to 9" in load_broken(tmp_path, shard)
    write_shard(shard, [*range(10), -1])
    assert "got -1 to 9" in load_broken(tmp_path, shard)


def test_absent_classes_are_named(tmp_path: Path, shard: Path) -> None:
    write_shard(shard, [0, 1, 2, 4, 5, 6, 7, 9])
    assert "2 are absent: 3, 8" in load_broken(tmp_path, shard)


# --- fetching ---------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """Start a web server on this machine, trusted without https; yield address and folder."""
    monkeypatch.setattr(download, "SCHEMES", {"http"})
    folder = tmp_path / "host"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def mnist_host(host: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the second mirror of MNIST; the first mirror is empty."""
    address, folder = host
    write_idx(folder, compress=True)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"{address}gone/", address])
    sums = [(p.name, hashlib.md5(p.read_bytes()).hexdigest()) for p in sorted(folder.iterdir())]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    return folder


def test_fetched_set_is_found_afterwards(
    mnist_host: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = datasets.fetch("mnist", None)
    assert source.folder == cache / "mnist"
    assert len(datasets.load(source, "test").labels) == 10
    assert [path.name for path in cache.iterdir()] == ["mnist"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("downloading train-images-idx3-ubyte.gz: 0.0 of 0.0 MB") == 1
    shutil.rmtree(mnist_host)
    assert datasets.fetch("mnist", None) == source  # not downloaded again


def test_a_listener_receives_the_progress_of_every_file(
    mnist_host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: dict[str, list[tuple[int, int | None]]] = {}
    datasets.fetch("mnist", None, lambda name, *count: calls.setdefault(name, []).append(count))
    sizes = {path.name: path.stat().st_size for path in mnist_host.iterdir()}
    assert {name: counts[0] for name, counts in calls.items()} == {n: (0, sizes[n]) for n in sizes}
    assert {name: counts[-1] for name, counts in calls.items()} == {
        n: (sizes[n],) * 2 for n in sizes
    }
    assert capsys.readouterr().err == ""


def test_the_download_bars_name_each_file(
    mnist_host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with DownloadBars() as bars:
        datasets.fetch("mnist", None, bars)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all(path.name in captured.err for path in mnist_host.iterdir())


def test_failed_fetch_says_what_to_fetch_and_leaves_nothing(mnist_host: Path, cache: Path) -> None:
    (mnist_host / "train-labels-idx1-ubyte.gz").unlink()
    message = refusal(lambda: datasets.fetch("mnist", None))
    assert "gone/train-labels-idx1-ubyte.gz" in message and str(cache / "mnist") in message
    assert list(cache.iterdir()) == []


def test_download_of_another_md5_sum_is_refused(mnist_host: Path, cache: Path) -> None:
    path = mnist_host / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    refusal(lambda: datasets.fetch("mnist", None))
    assert list(cache.iterdir()) == []


def test_cifar_is_fetched_as_its_archive(
    host: tuple[str, Path],
    cifar100: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    path = write_tar(host[1] / "cifar-100-python.tar.gz", cifar100)
    source = torchvision.datasets.CIFAR100
    monkeypatch.setattr(source, "url", host[0] + path.name)
    monkeypatch.setattr(source, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    fetched = datasets.fetch("cifar100", tmp_path / "data")
    assert fetched.folder == tmp_path / "data" / "cifar100"
    assert len(datasets.load(fetched, "test").labels) == 100


def test_torchvision_still_names_what_is_fetched() -> None:
    for archive in ARCHIVES.values():
        source = getattr(torchvision.datasets, archive.class_name)
        downloads = loading._downloads(archive, source)
        names = [f"{name}.gz" for names in archive.members.values() for name in names]
        assert sorted(downloads) == sorted([archive.tar] if archive.tar else names)
        for urls, md5 in downloads.values():
            assert urls and all(url.startswith("https://") for url in urls)
            assert re.fullmatch("[0-9a-f]{32}", md5)


# --- the real CIFAR-100 -----------------------------------------------------------------------


@pytest.mark.skipif(not (REAL / "cifar100").is_dir(), reason="needs CIFAR-100 in shared/datasets")
def test_real_cifar100_shards_are_read() -> None:
    source = locate("cifar100", REAL)
    loaded = datasets.load(source, "train", 500)
    assert source.form == "parquet"
    assert loaded.labels.tolist() == list(range(100)) * 5
    mean = (loaded.images / 255).mean(dim=(0, 2, 3))
    # 500 images: a few standard errors of the mean over images
    assert mean.tolist() == pytest.approx(source.info.mean, abs=0.03)
