"""Class names in the metadata of shards, and files of one data set under the name of another."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codingbench.datasets import files, find, load
from codingbench.datasets.catalogue import ARCHIVES, get_info, known_counts
from codingbench.datasets.class_names import class_names, mapped, mapping
from codingbench.datasets.loading import _check_counts
from codingbench.errors import DatasetError
from tests.test_datasets import png, write_idx

THINGS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CLOTHES = ["T - shirt / top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt"]
CLOTHES += ["Sneaker", "Bag", "Ankle boot"]


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")


def shard(path: Path, labels: list[int], names: object, mode: str = "RGB", side: int = 32) -> None:
    """Write a shard as the library ``datasets`` does; the pixels of image i are its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(i, mode, (side, side)), "path": None} for i in range(len(labels))]
    features = {"img": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    about = json.dumps({"info": {"features": features}})
    table = pa.table({"img": images, "label": labels})
    pq.write_table(table.replace_schema_metadata({"huggingface": about}), path)


def cifar10(folder: Path, train: object, test: object, more: object = None) -> Path:
    shards = 1 if more is None else 2
    shard(folder / f"train-00000-of-{shards:05d}.parquet", list(range(10)), train)
    if more is not None:
        shard(folder / f"train-00001-of-{shards:05d}.parquet", list(range(10)), more)
    shard(folder / "test-00000-of-00001.parquet", list(range(10)), test)
    return folder


def labels_by_image(folder: Path, split: str) -> list[tuple[int, int]]:
    source = find("cifar10", folder)
    assert source is not None
    loaded = load(source, split)
    pixels = loaded.images[:, 0, 0, 0].tolist()
    return sorted(zip(pixels, loaded.labels.tolist(), strict=True))


def test_opposite_names_of_train_and_test_are_mapped_by_name(tmp_path: Path) -> None:
    cifar10(tmp_path, THINGS, THINGS[::-1])
    assert labels_by_image(tmp_path, "train") == [(i, i) for i in range(10)]
    assert labels_by_image(tmp_path, "test") == [(i, 9 - i) for i in range(10)]


def test_shards_of_one_split_are_mapped_too(tmp_path: Path) -> None:
    cifar10(tmp_path, THINGS, THINGS, more=[THINGS[1], THINGS[0], *THINGS[2:]])
    expected = [(i, i) for i in range(10)] + [(0, 1), (1, 0)] + [(i, i) for i in range(2, 10)]
    assert labels_by_image(tmp_path, "train") == sorted(expected)


def test_equal_or_unknown_names_leave_labels_and_fingerprint_as_they_are(tmp_path: Path) -> None:
    for name, train, test in (("a", THINGS, THINGS), ("b", THINGS, None), ("c", None, THINGS)):
        cifar10(tmp_path / name, train, test)
        assert labels_by_image(tmp_path / name, "test") == [(i, i) for i in range(10)]
        source = find("cifar10", tmp_path / name)
        assert source is not None and not source._has_other_numbers()


def test_mapped_labels_are_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = find("cifar10", cifar10(tmp_path, THINGS, THINGS[::-1]))
    assert source is not None
    mapped_by_name = source.fingerprint()
    monkeypatch.setattr(type(source), "_has_other_numbers", lambda self: False)
    assert source.fingerprint() != mapped_by_name


def test_other_names_are_refused(tmp_path: Path) -> None:
    cifar10(tmp_path, THINGS, [*THINGS[:9], "lorry"])
    with pytest.raises(DatasetError) as caught:
        labels_by_image(tmp_path, "test")
    assert "expected the same names" in str(caught.value) and "(10 in all)" in str(caught.value)
    with pytest.raises(DatasetError, match="expected the same names"):
        mapping(tmp_path, ("a", "a"), ("a", "b"))


@pytest.mark.parametrize("names", ["abc", {"0": "a"}, [1, 2], [], 7])
def test_names_of_another_form_are_ignored(names: object, tmp_path: Path) -> None:
    cifar10(tmp_path, names, THINGS)
    assert labels_by_image(tmp_path, "test") == [(i, i) for i in range(10)]


def test_broken_metadata_is_ignored() -> None:
    schema = pa.schema({"label": pa.int64()})
    for text in ("{", "[]", "null", '{"info": null}', "[" * 100_000):
        assert class_names(schema.with_metadata({"huggingface": text}), "label") is None


def test_labels_outside_of_the_names_stay_outside() -> None:
    numbers = np.array([1, 0])
    assert mapped(np.array([0, 1, 2, -1, 9]), numbers).tolist() == [1, 0, 2, -1, 9]


# --- other data under a known name ----------------------------------------------------------------


def test_clothes_under_the_name_of_digits_are_refused_by_their_names(tmp_path: Path) -> None:
    for split in ("train", "test"):
        path = tmp_path / f"{split}-00000-of-00001.parquet"
        shard(path, list(range(10)), CLOTHES, mode="L", side=28)
    source = find("mnist", tmp_path)
    assert source is not None
    with pytest.raises(DatasetError, match=r"T - shirt / top, .* are those of fashion_mnist"):
        load(source, "train")
    clothes = find("fashion_mnist", tmp_path)
    assert clothes is not None and len(load(clothes, "train").labels) == 10


def test_whole_data_sets_are_told_apart_by_the_images_of_each_class(tmp_path: Path) -> None:
    source = find("mnist", write_idx(tmp_path, compress=False))
    assert source is not None
    with pytest.raises(DatasetError) as caught:
        _check_counts(source, "train", [6000] * 10)
    assert str(caught.value) == (
        f"{tmp_path} holds other data than mnist: 6,000 train images of class 0, expected at most "
        "5,923 (found 60,000 images, 6,000 to 6,000 of a class)"
    )
    clothes = find("fashion_mnist", tmp_path)
    assert clothes is not None
    with pytest.raises(DatasetError, match="6,742 train images of class 1, expected at most 6,000"):
        _check_counts(clothes, "train", list(known_counts(source.info, "train")))
    for found in (source, clothes):
        for split in ("train", "test"):
            _check_counts(found, split, known_counts(found.info, split))


def test_the_known_counts_give_the_known_sizes() -> None:
    for name in ARCHIVES:
        info = get_info(name)
        assert sum(known_counts(info, "train")) == info.train_size
        assert sum(known_counts(info, "test")) == info.test_size
    mnist = get_info("mnist")
    assert mnist.balanced_train == 10 * min(known_counts(mnist, "train"))
    assert mnist.balanced_test == 10 * min(known_counts(mnist, "test"))


def test_too_many_images_of_a_class_are_refused_when_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find("mnist", write_idx(tmp_path, compress=True))
    assert source is not None
    monkeypatch.setattr("codingbench.datasets.loading.known_counts", lambda info, split: (1,) * 10)
    with pytest.raises(DatasetError, match="2 train images of class 0, expected at most 1"):
        load(source, "train")
