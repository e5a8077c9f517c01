"""Data sets of Hugging Face's library: its own files are the reference for what is read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets as hf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from codingbench.datasets import Source, fetch, files, get_info, load
from codingbench.errors import DatasetError, SpecError
from tests.photos import encoded, photo

NAMES = ["cat", "cow", "dog"]
FORMS = ("hf", "parquet")


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(DatasetError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def rows(count: int, seed: int, mode: str = "L", columns: str = "image label") -> hf.Dataset:
    """Return images of 12 x 9 pixels, their classes in turn."""
    image, label = columns.split()
    features = hf.Features({image: hf.Image(), label: hf.ClassLabel(names=NAMES)})
    images = [photo(seed + row, (9, 12), mode) for row in range(count)]
    return hf.Dataset.from_dict({image: images, label: [r % 3 for r in range(count)]}, features)


def written(parts: dict[str, hf.Dataset], folder: Path, form: str) -> Source:
    if form == "hf":
        hf.DatasetDict(parts).save_to_disk(folder)
    else:
        (folder / "data").mkdir(parents=True)
        for name, part in parts.items():
            part.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return fetch(f"{form}:{folder}", None)


def pixels(part: hf.Dataset, image: str = "image") -> np.ndarray:
    stacked = np.stack([np.asarray(each) for each in part[image]])
    return stacked[:, np.newaxis] if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("mode", "columns"), [("L", "image label"), ("RGB", "img labels")])
def test_images_and_labels_are_those_that_the_library_reads(
    tmp_path: Path, form: str, mode: str, columns: str
) -> None:
    parts = {"train": rows(12, 0, mode, columns), "test": rows(6, 50, mode, columns)}
    source = written(parts, tmp_path / "animals", form)
    assert source.info.name == f"{form}:animals"
    assert source.info.shape == ({"L": 1, "RGB": 3}[mode], 12, 9)
    assert (source.info.num_classes, source.info.train_size, source.info.test_size) == (3, 12, 6)
    for name, part in parts.items():  # classes in turn: already in the balanced order
        loaded = load(source, name)
        assert (loaded.images.numpy() == pixels(part, columns.split()[0])).all()
        assert loaded.labels.tolist() == part[columns.split()[1]]


def test_both_forms_of_the_same_data_have_one_fingerprint(tmp_path: Path) -> None:
    parts = {"train": rows(12, 0), "test": rows(6, 50)}
    found = {written(parts, tmp_path / form, form).fingerprint() for form in FORMS}
    assert len(found) == 1
    parts["test"] = rows(6, 51)
    assert written(parts, tmp_path / "other", "hf").fingerprint() not in found


@pytest.mark.parametrize("form", FORMS)
def test_validation_stands_in_for_a_test_that_is_absent_or_has_no_labels(
    tmp_path: Path, form: str
) -> None:
    parts = {"train": rows(12, 0), "validation": rows(6, 50)}
    source = written(parts, tmp_path / "a", form)
    assert "the test images are its validation images" in source.remark()
    unlabelled = hf.Dataset.from_dict(
        {"image": parts["train"]["image"], "label": [-1] * 12}, parts["train"].features
    )
    other = written({**parts, "test": unlabelled}, tmp_path / "b", form)
    assert "its test has no labels (-1)" in other.remark()
    assert torch.equal(load(other, "test").images, load(source, "test").images)


def test_a_single_saved_split_is_divided(tmp_path: Path) -> None:
    rows(30, 0).save_to_disk(tmp_path / "one")
    source = fetch(f"hf:{tmp_path / 'one'}", None)
    assert (source.info.train_size, source.info.test_size) == (24, 6)
    assert "every fifth image of each class" in source.remark()


def test_shards_that_number_the_classes_differently_are_mapped(tmp_path: Path) -> None:
    turned = hf.ClassLabel(names=NAMES[::-1])
    test = rows(6, 50)
    swapped = hf.Dataset.from_dict(
        {"image": test["image"], "label": [2 - label for label in test["label"]]},
        hf.Features({"image": hf.Image(), "label": turned}),
    )
    source = written({"train": rows(12, 0), "test": swapped}, tmp_path / "a", "parquet")
    assert load(source, "test").labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_images_of_several_sizes_are_scaled_and_said(tmp_path: Path) -> None:
    images = [photo(row, (20 + row, 16), "RGB") for row in range(15)]
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=NAMES)})
    part = hf.Dataset.from_dict({"image": images, "label": [0, 1, 2] * 5}, features)
    source = written({"train": part}, tmp_path / "a", "parquet")
    assert source.info.shape == (3, 224, 224)
    assert "images of several sizes, or of more pixels, are scaled to 224" in source.remark()


# --- refusals -----------------------------------------------------------------------------------


def shard(folder: Path, images: Any, name: str = "train.parquet", **columns: Any) -> str:
    folder.mkdir(exist_ok=True)
    table = pa.table({"image": images, "label": [0, 1, 2] * (len(images) // 3), **columns})
    pq.write_table(table, folder / name)
    return f"parquet:{folder}"


def test_folders_without_the_files_are_refused(tmp_path: Path) -> None:
    assert "holds no file *.parquet" in refusal(lambda: get_info(f"parquet:{tmp_path}"))
    assert "state.json cannot be read" in refusal(lambda: get_info(f"hf:{tmp_path}"))
    assert "there is no folder" in refusal(lambda: get_info(f"hf:{tmp_path / 'none'}"))
    with pytest.raises(SpecError, match="has no path, expected hf:PATH"):
        get_info("hf:")


def test_a_missing_shard_and_two_configurations_are_refused(tmp_path: Path) -> None:
    images = [encoded(photo(row)) for row in range(3)]
    name = shard(tmp_path / "a", images, "train-00000-of-00002.parquet")
    assert "1 shards, but their names state 00002" in refusal(lambda: get_info(name))
    for config in ("one", "two"):
        (tmp_path / "b" / config).mkdir(parents=True)
        shard(tmp_path / "b" / config, images)
    assert "train shards in" in refusal(lambda: get_info(f"parquet:{tmp_path / 'b'}"))


@pytest.mark.parametrize("name", ["../secret.arrow", "/etc/passwd", 3])
def test_a_state_that_names_a_file_elsewhere_is_refused(tmp_path: Path, name: Any) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    assert "outside of its folder" in refusal(lambda: get_info(f"hf:{tmp_path}"))


@pytest.mark.parametrize("split", ["..", "../train", "a/b"])
def test_a_split_that_names_a_folder_elsewhere_is_refused(tmp_path: Path, split: str) -> None:
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
    assert "cannot be used" in refusal(lambda: get_info(f"hf:{tmp_path}"))


@pytest.mark.parametrize("form", FORMS)
def test_files_cut_off_or_overwritten_are_named(tmp_path: Path, form: str) -> None:
    written({"train": rows(30, 0)}, tmp_path / "a", form)
    (path,) = [p for p in (tmp_path / "a").rglob("*") if p.suffix in (".arrow", ".parquet")]
    whole = path.read_bytes()
    for content in (b"", whole[:40], whole[: len(whole) // 2], b"\xff" * len(whole)):
        path.write_bytes(content)
        assert path.name in refusal(lambda: get_info(f"{form}:{tmp_path / 'a'}"))


def test_one_image_repeated_in_every_row_does_not_fill_the_memory(tmp_path: Path) -> None:
    large = pa.array([b"x" * 2**20]).dictionary_encode()
    images = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), large.dictionary)
    name = shard(tmp_path / "a", images.cast(pa.binary()))
    assert "its images expand to 314,572,800 bytes" in refusal(lambda: get_info(name))


def test_a_compressed_arrow_file_is_refused_unexpanded(tmp_path: Path) -> None:
    written({"train": rows(30, 0)}, tmp_path / "a", "hf")
    (path,) = (tmp_path / "a").rglob("*.arrow")
    with pa.ipc.open_stream(path.read_bytes()) as stream:
        table = stream.read_all()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(path, table.schema, options=options) as file:
        file.write_table(table)
    assert "it is compressed" in refusal(lambda: get_info(f"hf:{tmp_path / 'a'}"))


@pytest.mark.parametrize(
    ("images", "columns", "says"),
    [
        ([b"no image"] * 15, {}, "image in row 0 is broken"),
        (["text"] * 15, {}, "column 'image' is string, expected struct{bytes, path}"),
        ([None, b"", b""] * 5, {}, "5 rows have no image bytes"),
        ([b""] * 15, {"label": [0.5] * 15}, "column 'label' is double, expected whole numbers"),
        ([b""] * 15, {"label": [None, 1, 2] * 5}, "holds 5 empty values"),
    ],
)
def test_columns_that_are_not_images_and_labels_are_refused(
    tmp_path: Path, images: list[Any], columns: dict[str, Any], says: str
) -> None:
    name = shard(tmp_path / "a", images, **columns)
    assert says in refusal(lambda: get_info(name))


def test_an_image_of_too_many_pixels_is_refused_undecoded(tmp_path: Path) -> None:
    bomb = encoded(Image.new("1", (20_000, 20_000)))
    name = shard(tmp_path / "a", [bomb] * 15)
    assert "(400000000 pixels) exceeds" in refusal(lambda: get_info(name))
