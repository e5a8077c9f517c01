"""Decoded images are kept in the cache folder, and any fault of the cache only costs time."""

import io
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from codingbench.datasets import decoded, decoding, files, find, load
from codingbench.datasets.decoding import UndecodableError, decode_images
from codingbench.datasets.files import Source
from codingbench.datasets.images import Split
from codingbench.errors import DatasetError

CLASSES = 10


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache; return the folder of decoded images."""
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache" / "data")
    decoded._tell.cache_clear()
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many images each call decodes."""
    from codingbench.datasets import images

    calls: list[int] = []
    real = decode_images

    def recorded(contents: Any, shape: Any) -> Any:
        calls.append(len(contents))
        return real(contents, shape)

    monkeypatch.setattr(images, "decode_images", recorded)
    return calls


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def shards(folder: Path, seed: int = 0) -> Source:
    """Write MNIST as Parquet shards, two row groups each, with 20 + 10 random images."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(seed)
    for split, count in (("train", 20), ("test", 10)):
        images = [{"bytes": png(draws.integers(0, 256, (28, 28), np.uint8))} for _ in range(count)]
        labels = [number % CLASSES for number in range(count)]
        table = pa.table({"image": images, "label": labels})
        path = folder / f"{split}-00000-of-00001.parquet"
        pq.write_table(table, path, row_group_size=count // 2)
    source = find("mnist", folder.parent)
    assert source is not None
    return source


def same(a: Split, b: Split) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


def test_a_second_load_decodes_nothing_and_gives_the_same_images(
    tmp_path: Path, cache: Path, decodings: list[int]
) -> None:
    source = shards(tmp_path / "mnist")
    first = load(source, "train")
    assert decodings == [20]
    assert same(load(source, "train"), first)
    assert decodings == [20]
    (kept,) = cache.iterdir()
    images = np.load(kept)  # in the order of the shard; the split is in a balanced order
    assert images.shape == (20, 1, 28, 28)
    assert torch.equal(first.images, torch.from_numpy(images))  # labels 0 to 9 twice are balanced


def test_a_prefix_decodes_only_its_images_and_keeps_nothing(
    tmp_path: Path, cache: Path, decodings: list[int]
) -> None:
    source = shards(tmp_path / "mnist")
    prefix = load(source, "train", 7)
    assert decodings == [7]
    assert not cache.exists()
    whole = load(source, "train")
    assert same(load(source, "train", 7), prefix)
    assert decodings == [7, 20]
    assert torch.equal(prefix.images, whole.images[:7])


def test_loaded_images_do_not_depend_on_the_file_in_the_cache(tmp_path: Path, cache: Path) -> None:
    source = shards(tmp_path / "mnist")
    load(source, "train")
    held = load(source, "train")
    before = held.images.clone()
    (kept,) = cache.iterdir()
    kept.write_bytes(bytes(kept.stat().st_size))
    assert torch.equal(held.images, before)
    held.images.zero_()  # they are writable, and writing does not reach the file
    assert kept.read_bytes() == bytes(kept.stat().st_size)


def test_changed_shards_are_decoded_again(tmp_path: Path, decodings: list[int]) -> None:
    old = load(shards(tmp_path / "mnist"), "train")
    new = load(shards(tmp_path / "mnist", seed=1), "train")
    assert decodings == [20, 20]
    assert not torch.equal(old.images, new.images)


def cut(kept: Path) -> None:
    kept.write_bytes(kept.read_bytes()[:-100])


def cut_digest(kept: Path) -> None:
    kept.write_bytes(kept.read_bytes()[:-1])


def flip_a_bit(kept: Path) -> None:
    content = bytearray(kept.read_bytes())
    content[1000] ^= 1
    kept.write_bytes(content)


def empty(kept: Path) -> None:
    kept.write_bytes(b"")


def be_foreign(kept: Path) -> None:
    kept.write_bytes(b"not an array, and not a pickle that would be loaded")


def be_a_pickle(kept: Path) -> None:
    np.save(kept, np.array([print], dtype=object), allow_pickle=True)


def have_another_shape(kept: Path) -> None:
    np.save(kept, np.zeros((20, 28, 28), np.uint8))


@pytest.mark.parametrize(
    "damage",
    [cut, cut_digest, flip_a_bit, empty, be_foreign, be_a_pickle, have_another_shape],
)
def test_a_damaged_file_is_named_in_one_line_and_replaced(
    damage: Any,
    tmp_path: Path,
    cache: Path,
    decodings: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = shards(tmp_path / "mnist")
    first = load(source, "train")
    (kept,) = cache.iterdir()
    damage(kept)
    assert same(load(source, "train"), first)
    (line,) = capsys.readouterr().err.splitlines()
    assert str(kept) in line and "decoded again" in line
    assert same(load(source, "train"), first)
    assert decodings == [20, 20]


def test_a_folder_that_cannot_be_written_costs_one_line(
    tmp_path: Path, cache: Path, decodings: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    source = shards(tmp_path / "mnist")
    cache.parent.mkdir()
    cache.write_text("a file in its place")
    first = load(source, "train")
    assert same(load(source, "train"), first)
    assert decodings == [20, 20]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("decoded images are not kept")


def test_of_many_loads_at_once_one_decodes(
    tmp_path: Path, cache: Path, decodings: list[int]
) -> None:
    source = shards(tmp_path / "mnist")
    found: list[Split] = []
    threads = [
        threading.Thread(target=lambda: found.append(load(source, "train"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and all(same(split, found[0]) for split in found)
    assert decodings == [20]
    assert [path.suffix for path in cache.iterdir()] == [".npy"]


def test_a_broken_image_keeps_its_error_and_leaves_no_file(tmp_path: Path, cache: Path) -> None:
    source = shards(tmp_path / "mnist")
    (path,) = source.files["train"]
    table = pq.read_table(path).to_pydict()
    table["image"][13] = {"bytes": b"no image"}
    pq.write_table(pa.table(table), path, row_group_size=10)
    with pytest.raises(DatasetError, match="image in row 13: expected a PNG or JPEG file"):
        load(source, "train")
    assert list(cache.iterdir()) == []


def test_the_files_used_least_recently_make_room(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shards(tmp_path / "mnist")
    load(source, "train")
    (train,) = cache.iterdir()
    os.utime(train, (1, 1))
    load(source, "test")
    (test,) = set(cache.iterdir()) - {train}
    os.utime(test, (2, 2))
    load(source, "train")  # now the test images are the older ones
    monkeypatch.setattr(decoded, "MOST_BYTES", 2 * 20 * 28 * 28)
    load(shards(tmp_path / "other" / "mnist", seed=1), "test")
    assert train in cache.iterdir() and test not in cache.iterdir()
    monkeypatch.setattr(decoded, "MOST_BYTES", 100)
    load(shards(tmp_path / "third" / "mnist", seed=2), "test")
    assert list(cache.iterdir()) == []


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    old, new = cache / ".old.tmp", cache / ".new.tmp"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    os.utime(old, (1, 1))
    load(shards(tmp_path / "mnist"), "train")
    assert not old.exists() and new.exists()


def test_the_summary_names_folder_and_size(tmp_path: Path, cache: Path) -> None:
    assert decoded.summary().startswith("0 MB") and str(cache) in decoded.summary()
    cache.mkdir(parents=True)
    (cache / "a.npy").write_bytes(bytes(3_000_000))
    assert decoded.summary().startswith("3 MB of at most 4,295 MB")


@pytest.fixture
def several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a process for every two images, on three cores."""
    monkeypatch.setattr(decoding, "LEAST_IMAGES", 2)
    monkeypatch.setattr(decoding, "_cores", lambda: 3)


@pytest.mark.usefixtures("several_processes")
def test_processes_decode_to_the_same_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3), np.uint8)
    expected = pixels.transpose(0, 3, 1, 2)
    assert np.array_equal(decode_images([png(image) for image in pixels], (3, 5, 4)), expected)


@pytest.mark.usefixtures("several_processes")
def test_an_error_in_a_process_names_the_image() -> None:
    good = png(np.zeros((5, 4, 3), np.uint8))
    with pytest.raises(UndecodableError, match="expected a PNG or JPEG file") as caught:
        decode_images([good, good, good, good, good, b"bad", good], (3, 5, 4))
    assert caught.value.index == 5


@pytest.mark.usefixtures("several_processes")
def test_images_are_decoded_where_no_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    pixels = np.full((7, 5, 4, 3), 9, np.uint8)
    found = decode_images([png(image) for image in pixels], (3, 5, 4))
    assert np.array_equal(found, pixels.transpose(0, 3, 1, 2))
