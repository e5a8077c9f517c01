"""Data sets of the user's own arrays: .npz files and Python files."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import codingbench as cb
from codingbench.cells.weights import restore
from codingbench.datasets import Source, fetch, files, get_info, load
from codingbench.errors import CodingbenchError, DatasetError, SpecError
from codingbench.store.folder import Store

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 10, 12), np.uint8)
LABELS = np.tile([0, 1, 2], 10)


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("CODINGBENCH_DATA_DIR", raising=False)


def refusal(call: Callable[[], Any], kind: type[CodingbenchError] = DatasetError) -> str:
    with pytest.raises(kind) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def npz(folder: Path, name: Any = "digits.npz", **arrays: Any) -> Source:
    np.savez(folder / name, **arrays)
    return fetch(str(folder / name), None)


# --- what is read -------------------------------------------------------------------------------


def test_every_fifth_image_of_each_class_is_for_the_test(tmp_path: Path) -> None:
    source = npz(tmp_path, x=IMAGES, y=LABELS)
    info = source.info
    assert (info.name, info.shape, info.num_classes) == ("digits.npz", (1, 10, 12), 3)
    assert (info.train_size, info.test_size) == (24, 6)
    # ranks 4 and 9 of the classes 0, 1 and 2, whose images are every third
    test = load(source, "test").images[:, 0].numpy()
    assert (test == IMAGES[[12, 13, 14, 27, 28, 29]]).all()
    assert source.remark() == (
        "digits.npz: 10x12 grey (HW); it has no test split: every fifth image of each class, in "
        "order, is for the test"
    )


def test_mean_and_std_are_numpys_over_the_training_images(tmp_path: Path) -> None:
    colour = np.random.default_rng(1).integers(0, 200, (12, 3, 8, 9), np.uint8)
    labels = np.tile([0, 1], 6)
    info = npz(tmp_path, x_train=colour, y_train=labels, x_test=colour, y_test=labels).info
    assert info.mean == pytest.approx((colour / 255).mean((0, 2, 3)), abs=1e-6)
    assert info.std == pytest.approx((colour / 255).std((0, 2, 3)), abs=1e-6)


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("X_train", "Y_train", "X_val", "Y_val"),
        ("images", "labels", "images_test", "labels_test"),
        ("training_data", "training_targets", "testing_data", "testing_targets"),
    ],
)
def test_the_usual_spellings_are_the_same_data(tmp_path: Path, names: tuple[str, ...]) -> None:
    arrays = (IMAGES, LABELS, IMAGES[:6], LABELS[:6, np.newaxis])
    usual = ("x_train", "y_train", "x_test", "y_test")
    expected = npz(tmp_path, "usual.npz", **dict(zip(usual, arrays, strict=True)))
    source = npz(tmp_path, **dict(zip(names, arrays, strict=True)), epochs=np.array(3))
    assert source.fingerprint() == expected.fingerprint()
    assert ("its validation images" in source.remark()) == (names[2] == "X_val")


def test_the_order_of_the_axes_is_told_apart_and_said(tmp_path: Path) -> None:
    colour = np.random.default_rng(1).integers(0, 256, (30, 3, 8, 9), np.uint8)
    first = npz(tmp_path, "a.npz", x=colour, y=LABELS)
    last = npz(tmp_path, "b.npz", x=colour.transpose(0, 2, 3, 1), y=LABELS)
    assert "8x9 colour (CHW)" in first.remark() and "8x9 colour (HWC)" in last.remark()
    assert first.fingerprint() == last.fingerprint()
    grey = npz(tmp_path, "c.npz", x=IMAGES[..., np.newaxis], y=LABELS)
    assert grey.fingerprint() == npz(tmp_path, x=IMAGES, y=LABELS).fingerprint()


def test_fractions_are_rounded_to_256_levels(tmp_path: Path) -> None:
    source = npz(tmp_path, x=(IMAGES / 255).astype(np.float32), y=LABELS)
    assert source.fingerprint() == npz(tmp_path, "b.npz", x=IMAGES, y=LABELS).fingerprint()
    assert "rounded to 256 levels" in source.remark()


def test_names_and_other_numbers_of_classes_are_numbered_from_0(tmp_path: Path) -> None:
    named = npz(tmp_path, x=IMAGES, y=np.array(["cat", "cow", "dog"])[LABELS])
    assert load(named, "train", 6).labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert "classes cat, cow, dog are numbered from 0 in this order" in named.remark()
    assert npz(tmp_path, "b.npz", x=IMAGES, y=LABELS + 1).fingerprint() == named.fingerprint()


def test_the_fingerprint_changes_with_a_pixel_and_with_a_label(tmp_path: Path) -> None:
    pixels, labels = IMAGES.copy(), LABELS.copy()
    pixels[7, 0, 0] ^= 1
    labels[7] = 2
    prints = {npz(tmp_path, x=x, y=LABELS).fingerprint() for x in (IMAGES, IMAGES, pixels)}
    assert len(prints | {npz(tmp_path, x=IMAGES, y=labels).fingerprint()}) == 3


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": IMAGES}, "found a, expected x and y, or x_train"),
        ({"x": IMAGES}, "no train labels among x"),
        ({"x": IMAGES, "images": IMAGES, "y": LABELS}, "both 'x' and 'images' stand for the train"),
        ({"x": IMAGES, "y": LABELS[1:]}, "30 images and 29 labels"),
        ({"x": IMAGES / 16, "y": LABELS}, "pixels from 0 to 15.9375, expected [0, 1]"),
        ({"x": IMAGES.astype(int) - 1, "y": LABELS}, "expected 0 to 255 for whole numbers"),
        ({"x": np.full((30, 8, 8), np.nan), "y": LABELS}, "pixels from nan to nan"),
        ({"x": IMAGES.reshape(30, 120), "y": LABELS}, "images of shape (30, 120), expected [N, H,"),
        ({"x": np.zeros((30, 3, 8, 3), np.uint8), "y": LABELS}, "cannot tell the axes"),
        ({"x": IMAGES, "y": LABELS / 2}, "one whole number or name per image"),
        ({"x": IMAGES, "y": LABELS * 0}, "1 classes among the training labels, expected 2"),
        ({"x": IMAGES * 0, "y": LABELS}, "all pixels of a channel have one value"),
        ({"x": IMAGES[:9], "y": LABELS[:9]}, "class 0 has 3 images, expected at least 5"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:3], "y_test": LABELS[:3] + 1},
            "the test has a class 3 that the training lacks",
        ),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, 1:], "y_test": LABELS},
            "training and test images differ in shape: 1x10x12 and 1x9x12",
        ),
    ],
)
def test_arrays_that_are_not_images_and_labels_are_refused(
    tmp_path: Path, arrays: dict[str, Any], says: str
) -> None:
    message = refusal(lambda: npz(tmp_path, **arrays))
    assert says in message and "digits.npz" in message


# --- hostile files ------------------------------------------------------------------------------


class Bomb:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_pickled_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([Bomb(tmp_path / "ran")] * 3), y=LABELS)
    assert "x holds Python objects" in refusal(lambda: get_info(str(tmp_path / "a.npz")))
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x.npy", pickle.dumps(Bomb(tmp_path / "ran")))
    assert "b.npz is broken" in refusal(lambda: get_info(str(tmp_path / "b.npz")))
    assert not (tmp_path / "ran").exists()


def test_an_archive_that_expands_too_much_is_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(300 * 2**20))
    assert "it expands to 314,572,800 bytes" in refusal(lambda: get_info(str(tmp_path / "a.npz")))


def test_a_header_that_announces_more_than_there_is_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (2**40, 8, 8)}
    np.lib.format.write_array_header_1_0(header, about)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    message = refusal(lambda: get_info(str(tmp_path / "a.npz")))
    assert "the header of x announces 70,368,744,177,664 bytes" in message


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_file_cut_off_is_named(tmp_path: Path, keep: int) -> None:
    npz(tmp_path, x=IMAGES, y=LABELS)
    path = tmp_path / "digits.npz"
    path.write_bytes(path.read_bytes()[:keep])
    assert "digits.npz is broken" in refusal(lambda: get_info(str(path)))


def test_what_is_not_a_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    assert "there is no file" in refusal(lambda: get_info(str(tmp_path / "pipe.npz")))
    long = "x" * 5000 + ".npz"
    assert "there is no file" in refusal(lambda: get_info(long))


# --- Python files -------------------------------------------------------------------------------

HEAD = """
import numpy as np
import torch
from torch.utils.data import Dataset

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 10, 12), np.uint8)
LABELS = np.tile([0, 1, 2], 10)
"""
FORMS = {
    "function": "def data(): return IMAGES, LABELS, IMAGES[:6], LABELS[:6]",
    "pairs": "def data(): return (IMAGES, LABELS), (IMAGES[:6], LABELS[:6])",
    "by_name": "data = dict(x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:6], y_test=LABELS[:6])",
    "torch": """
class data(Dataset):
    def __init__(self, train): self.count = 30 if train else 6
    def __len__(self): return self.count
    def __getitem__(self, row): return torch.from_numpy(IMAGES[row]) / 255, torch.tensor(row % 3)
""",
    "by_split": """
class data:
    def __init__(self, split): self.count = {"train": 30, "test": 6}[split]
    def __len__(self): return self.count
    def __getitem__(self, row): return IMAGES[row], row % 3
""",
}


def python(folder: Path, text: str, name: str = "data") -> Source:
    (folder / "mine.py").write_text(HEAD + text)
    return fetch(f"{folder / 'mine.py'}:{name}", None)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_python_data_gives_the_same_images(tmp_path: Path, form: str) -> None:
    source = python(tmp_path, FORMS[form])
    assert source.info.name == "mine.py:data" and source.info.shape == (1, 10, 12)
    four = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:6], "y_test": LABELS[:6]}
    expected = npz(tmp_path, **four)
    for split in ("train", "test"):
        assert torch.equal(load(source, split).images, load(expected, split).images)
        assert torch.equal(load(source, split).labels, load(expected, split).labels)


def test_the_fingerprint_changes_with_the_code_and_with_what_it_imports(tmp_path: Path) -> None:
    text = FORMS["function"] + "\n\ndef unused():\n    import beside\n"
    prints = [python(tmp_path, FORMS["function"]).fingerprint()]
    prints.append(python(tmp_path, text).fingerprint())
    for level in (1, 2):
        (tmp_path / "beside.py").write_text(f"LEVEL = {level}\n")
        prints.append(python(tmp_path, text).fingerprint())
    assert len(set(prints)) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def data(): return 3", "gives something else: expected arrays by name"),
        ("def data(): raise OSError('no disk')", "failed: OSError: no disk"),
        ("def data(): raise SystemExit(3)", "failed: SystemExit: 3"),
        ("def data(): return IMAGES, LABELS[:3]", "30 images and 3 labels"),
        ("def data(needed): return needed", "failed: TypeError"),
    ],
)
def test_python_that_gives_no_data_is_refused_in_a_line(
    tmp_path: Path, text: str, says: str
) -> None:
    assert says in refusal(lambda: python(tmp_path, text))


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path) -> None:
    message = refusal(lambda: python(tmp_path, "def data(): pass", "dat"), SpecError)
    assert "did you mean 'data'?" in message
    assert "expected FILE.py:NAME" in refusal(lambda: get_info("a.py:b-c"), SpecError)
    address = python(tmp_path, FORMS["by_name"]).info.address
    assert "has no parameters" in refusal(lambda: get_info(f"{address}[size=3]"), SpecError)


# --- runs ---------------------------------------------------------------------------------------

TINY: dict[str, Any] = {
    "T": 1, "epochs": 1, "encoders": "direct,rate", "backbones": "csnn[width=4]",
    "batch_size": 6, "device": "cpu", "quiet": True,
}  # fmt: skip


def rows(results: Path) -> Any:
    return Store(results).read("cells").set_index("key").sort_index()


def test_workers_and_another_run_give_the_same_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = python(tmp_path, FORMS["torch"])
    for workers in (1, 2):
        results = tmp_path / f"results{workers}"
        cb.run(dataset=source.info.address, **TINY, workers=workers, results=results)
    assert capsys.readouterr().err.count("pixels from [0, 1] are rounded to 256 levels") >= 1
    first, second = rows(tmp_path / "results1"), rows(tmp_path / "results2")
    columns = ["dataset", "encoder", "accuracy", "dataset_fingerprint"]
    assert first[columns].equals(second[columns]) and len(first) == 2
    assert set(first["dataset"]) == {"mine.py:data"}


def test_a_cell_is_loaded_again_from_the_data_folder_alone(tmp_path: Path) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    data.mkdir()
    source = python(data, FORMS["function"])
    cb.run(dataset=source.info.address, **TINY, results=results)
    (key, *_) = rows(results).index
    assert "is made by running a file: name the folder of your copy by --data-dir" in refusal(
        lambda: restore(Store(results), key, None), SpecError
    )
    restore(Store(results), key, data)


# --- the folder of data sets --------------------------------------------------------------------


def test_the_environment_names_the_folder_of_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codingbench.cells.settings import parse_settings
    from codingbench.doctor import diagnose

    npz(tmp_path, x=IMAGES, y=LABELS)
    monkeypatch.setenv("CODINGBENCH_DATA_DIR", str(tmp_path))
    assert fetch("digits.npz", None).folder == tmp_path
    assert parse_settings({}).grid.data_dir == tmp_path
    assert parse_settings({"data_dir": "elsewhere"}).grid.data_dir == Path.cwd() / "elsewhere"
    assert files.own_names(None) == ["digits.npz"]
    found = {finding.name: finding for finding in diagnose(tmp_path, None)}["folder of data sets"]
    assert found.value == f"{tmp_path} (CODINGBENCH_DATA_DIR)"
