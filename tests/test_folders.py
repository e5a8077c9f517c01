"""Folders of photographs as data sets: their classes, decoding, and errors."""

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

import codingbench as cb
from codingbench import datasets
from codingbench.cells.grid import Grid
from codingbench.datasets import fetch, files, find, folders, get_info, load
from codingbench.datasets.photos import MOST_BYTES, read_photo
from codingbench.errors import CodingbenchError, DatasetError, SpecError
from tests.photos import encoded, photo, write_photos

REAL = Path(__file__).parents[2] / "shared" / "datasets" / "imagenette-sample"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(files, "cache_folder", lambda: folder)
    return folder


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    """Write three classes of 4 + 2 images."""
    return write_photos(tmp_path / "toys")


def refusal(call: Callable[[], Any], kind: type[CodingbenchError] = DatasetError) -> str:
    with pytest.raises(kind) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def found(root: Path, size: int = 16) -> datasets.Source:
    return fetch(f"folder:{root}[size={size}]", None)


# --- names ------------------------------------------------------------------------------------


def test_a_folder_is_known_by_its_last_name_and_asked_for_by_its_path(toys: Path) -> None:
    info = get_info(f"folder:{toys}")
    assert (info.name, info.address) == ("folder:toys", f"folder:{toys}")
    assert (info.num_classes, info.train_size, info.test_size) == (3, 12, 6)
    assert info.shape == (3, 224, 224)
    assert (info.mean, info.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    small = get_info(f"folder:{toys}[size=64]")
    assert (small.name, small.address) == ("folder:toys[size=64]", f"folder:{toys}[size=64]")
    assert small.shape == (3, 64, 64)
    assert get_info(f"folder:{toys}[ size = 224 ]").name == "folder:toys"
    assert get_info("imagenet[size=160]").shape == (3, 160, 160)


def test_the_name_alone_is_found_in_the_data_folder_or_as_the_data_folder(toys: Path) -> None:
    for data_dir in (toys, toys.parent):
        source = fetch("folder:toys[size=16]", data_dir)
        assert (source.info.name, source.folder) == ("folder:toys[size=16]", toys)
    assert "there is no folder" in refusal(lambda: fetch("folder:toys", toys / "train"))


def test_a_relative_path_is_another_name_for_the_same_data_set(
    toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toys)
    texts = (f"folder:{toys}", "folder:.", "folder:train/..")
    assert {get_info(text) for text in texts} == {get_info(f"folder:{toys}")}


def test_a_grid_has_a_data_set_for_every_size(toys: Path) -> None:
    jobs = Grid(encoders=("direct",), datasets=(f"folder:{toys}[size=16|32]",)).expand()
    assert [job.cell.dataset for job in jobs] == ["folder:toys[size=16]", "folder:toys[size=32]"]
    assert [job.cell.train_samples for job in jobs] == [12, 12]
    assert str(toys) not in str([job.cell for job in jobs])


def test_two_folders_of_one_name_are_refused(toys: Path, tmp_path: Path) -> None:
    other = shutil.copytree(toys, tmp_path / "elsewhere" / "toys")
    grid = Grid(encoders=("direct",), datasets=(f"folder:{toys}", f"folder:{other}"))
    message = refusal(grid.expand, SpecError)
    assert message == "two different data sets are named 'folder:toys'; names must be unique"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("folder:", "'folder:' has no path, expected folder:PATH"),
        ("folder:[size=64]", "cannot read|has no path"),
        ("folder:toys[size=a]", "size must be a whole number from 8 to 2048, got 'a'"),
        ("folder:toys[size=7]", "size must be a whole number from 8 to 2048, got '7'"),
        ("folder:toys[size=4096]", "from 8 to 2048, got '4096'"),
        ("folder:toys[size=-64]", "from 8 to 2048, got '-64'"),
        ("folder:toys[sise=64]", "unknown parameter of folder:toys: 'sise'; did you mean 'size'"),
        ("folder:toys[size=64", "expected name"),
        ("imagenet[size=7]", "size must be a whole number from 8 to 2048, got '7'"),
        ("cifar10[size=64]", "data set 'cifar10' has no parameters"),
        ("imagnet", "did you mean 'imagenet'"),
    ],
)
def test_names_that_say_nothing_sensible_are_refused(toys: Path, name: str, says: str) -> None:
    message = refusal(lambda: get_info(name, toys.parent), SpecError)
    assert any(part in message for part in says.split("|")), message


def test_a_folder_whose_name_cannot_stand_in_a_list_is_refused(tmp_path: Path) -> None:
    write_photos(tmp_path / "cats, dogs")
    path = f"folder:{tmp_path / 'cats, dogs'}"
    assert "without any of [ ] , |" in refusal(lambda: get_info(path), SpecError)


# --- folders ----------------------------------------------------------------------------------


def test_classes_are_the_sorted_folders_and_every_prefix_is_balanced(toys: Path) -> None:
    (toys / "train" / "notes.txt").write_text("not a class")
    (toys / "train" / "a" / "notes.txt").write_text("not an image")
    (toys / "train" / ".hidden").mkdir()
    source = found(toys)
    assert load(source, "train").labels.tolist() == [0, 1, 2] * 4
    assert load(source, "test").labels.tolist() == [0, 1, 2] * 2
    some, whole = load(source, "train", 5), load(source, "train")
    assert torch.equal(some.images, whole.images[:5]) and some.labels.tolist() == [0, 1, 2, 0, 1]
    reds = whole.images[:, 0].float().mean((1, 2))
    assert (reds[whole.labels == 0] - 200).abs().max() < 3  # the red class
    assert (reds[whole.labels != 0] - 200).abs().min() > 10


def test_image_i_is_the_file_of_that_rank_and_class(toys: Path) -> None:
    images = load(found(toys), "train").images
    for rank, suffix in enumerate(("JPEG", "png", "JPEG", "png")):
        for label, name in enumerate("abc"):
            path = toys / "train" / name / f"train_{rank}.{suffix}"
            assert np.array_equal(images[3 * rank + label].numpy(), read_photo(path, 16))


def test_the_folder_test_stands_in_for_val(toys: Path) -> None:
    before = load(found(toys), "test")
    (toys / "val").rename(toys / "test")
    assert torch.equal(load(found(toys), "test").images, before.images)


def test_val_may_lack_a_class(toys: Path) -> None:
    shutil.rmtree(toys / "val" / "b")
    assert load(found(toys), "test").labels.tolist() == [0, 2] * 2


def _without(path: str) -> Callable[[Path], object]:
    return lambda root: shutil.rmtree(root / path)


def _emptied(path: str) -> Callable[[Path], object]:
    def spoil(root: Path) -> None:
        for file in (root / path).iterdir():
            file.unlink()

    return spoil


def _alone(root: Path) -> None:
    for name in "bc":
        shutil.rmtree(root / "train" / name)


def _flat(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val").mkdir()
    (root / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_without("."), "there is no folder"),
        (_without("train"), "has no folder train, expected train/<class>/*{.jpg,.jpeg,.png}"),
        (_without("val"), "has no folder val (or test)"),
        (_without("train/b"), "val has a class 'b' that train lacks"),
        (_emptied("train/b"), "b holds no image"),
        (_emptied("val/c"), "c holds no image"),
        (_flat, "val has no class folders: sort its images into folders"),
        (_alone, "holds 1 class folders, expected 2 to 32,768"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(
    toys: Path, spoil: Callable[[Path], object], says: str
) -> None:
    spoil(toys)
    message = refusal(lambda: get_info(f"folder:{toys}"))
    assert says in message and str(toys) in message


def test_more_images_than_there_are_are_refused(toys: Path) -> None:
    expected = "13 train images of folder:toys[size=16] were requested, but there are 12"
    assert expected in refusal(lambda: load(found(toys), "train", 13))
    grid = Grid(encoders=("direct",), datasets=(f"folder:{toys}",), train_samples=13)
    assert "has 12 train images, but 13 were requested" in refusal(grid.expand, SpecError)


# --- fingerprints -----------------------------------------------------------------------------


def _another_byte(root: Path) -> None:
    path = root / "val" / "c" / "val_1.png"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def _another_size(root: Path) -> None:
    path = root / "val" / "c" / "val_1.png"
    path.write_bytes(path.read_bytes() + b"x")


CHANGES: list[Callable[[Path], object]] = [
    _another_byte,
    _another_size,
    lambda root: (root / "train" / "a" / "train_0.JPEG").unlink(),
    lambda root: (root / "train" / "a" / "train_0.JPEG").rename(root / "train" / "a" / "x.JPEG"),
    lambda root: [(root / split / "a").rename(root / split / "d") for split in ("train", "val")],
]


@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_changes_with_the_files(
    toys: Path, change: Callable[[Path], object]
) -> None:
    before = found(toys).fingerprint()
    change(toys)
    assert found(toys).fingerprint() != before


def test_the_fingerprint_is_that_of_the_images_wherever_they_are(
    toys: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(toys, tmp_path / "copy")
    (other / "train" / "a" / "thumbs.db").write_bytes(b"no image")
    prints = {found(toys).fingerprint(), found(other).fingerprint(), found(toys, 32).fingerprint()}
    assert len(prints) == 1 and len(prints.pop()) == 16


def test_of_many_bytes_names_and_sizes_are_hashed_and_no_contents(
    toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = found(toys).fingerprint()
    monkeypatch.setattr(folders, "HASHED_BYTES", 1000)
    before = found(toys).fingerprint()
    assert before != whole
    _another_byte(toys)
    assert found(toys).fingerprint() == before
    _another_size(toys)
    assert found(toys).fingerprint() != before


# --- decoding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(300, 200), (200, 301), (224, 224), (50, 40), (37, 91)])
@pytest.mark.parametrize("size", [32, 64, 224])
def test_pixels_are_those_of_torchvisions_resize_and_centre_crop(
    tmp_path: Path, shape: tuple[int, int], size: int
) -> None:
    image = photo(1, shape)
    image.save(tmp_path / "a.jpg", quality=90)
    with Image.open(tmp_path / "a.jpg") as opened:
        field = transforms.Compose(
            [transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size)]
        )(opened.convert("RGB"))
    ours = read_photo(tmp_path / "a.jpg", size)
    assert ours.shape == (3, size, size) and ours.dtype == np.uint8
    assert np.array_equal(ours, np.asarray(field).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("mode", "form"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("1", "PNG")],
)
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str, form: str) -> None:
    image = Image.new("RGB", (32, 32), (255, 255, 255)).convert(mode)
    path = tmp_path / "photo.jpeg"  # ImageNet has PNG files with such names
    path.write_bytes(encoded(image, form))
    assert np.array_equal(read_photo(path, 16), np.full((3, 16, 16), 255))


def test_a_grey_file_has_three_equal_channels(tmp_path: Path) -> None:
    photo(3, (32, 32), "L").save(tmp_path / "grey.png")
    red, green, blue = read_photo(tmp_path / "grey.png", 28)
    assert np.array_equal(red, green) and np.array_equal(red, blue) and red.std() > 5


def announcing(width: int, height: int) -> bytes:
    """Return the start of a grey PNG file with the given size."""
    chunk = b"IHDR" + struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    return start + struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT" + bytes(4)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (encoded(photo(0, (64, 64)), "JPEG")[:-200], "is broken: OSError: image file is trunc"),
        (b"", "is broken: UnidentifiedImageError"),
        (b"<svg/>", "is broken: UnidentifiedImageError"),
        (encoded(photo(0), "GIF"), "is broken: UnidentifiedImageError"),
        (encoded(photo(0), "TIFF"), "is broken: UnidentifiedImageError"),
        (announcing(12_000, 10_000), "12000x10000 pixels, expected at most 89,478,485"),
        (announcing(100_000, 100_000), "DecompressionBombError"),
        (announcing(1, 50_000_000), "1x50000000 pixels would be too long"),
        (
            encoded(Image.new("I;16", (32, 32))),
            "colour mode I;16, expected one with 8 bits per channel",
        ),
    ],
)
def test_a_file_that_is_no_photograph_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "photo.JPEG"
    path.write_bytes(content)
    message = refusal(lambda: read_photo(path, 16))
    assert says in message and message.startswith(str(path))


def test_a_file_of_too_many_bytes_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "photo.JPEG"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    assert "67,108,865 bytes, expected at most 67,108,864" in refusal(lambda: read_photo(path, 16))


def test_a_broken_file_is_named_when_the_data_set_is_loaded(toys: Path) -> None:
    path = toys / "train" / "b" / "train_2.JPEG"
    path.write_bytes(path.read_bytes()[:-60])
    assert refusal(lambda: load(found(toys), "train")).startswith(f"{path} is broken")


# --- ImageNet ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a thousand classes of one image each, grey like the class number modulo 256."""
    folder = tmp_path_factory.mktemp("data")
    greys = [encoded(Image.new("L", (8, 8), grey)) for grey in range(256)]
    for split in ("train", "val"):
        for label in range(1000):
            place = folder / "imagenet" / split / f"n{label:08d}"
            place.mkdir(parents=True)
            (place / "a.JPEG").write_bytes(greys[label % 256])
    return folder


@pytest.mark.parametrize("inside", [True, False])
def test_imagenet_is_found_in_the_data_folder_or_its_folder(thousand: Path, inside: bool) -> None:
    source = fetch("imagenet[size=8]", thousand / "imagenet" if inside else thousand)
    assert source.folder == thousand / "imagenet"
    loaded = load(source, "test", 1000)
    assert loaded.labels.tolist() == list(range(1000))
    assert loaded.images[:, 0, 0, 0].tolist() == [label % 256 for label in range(1000)]


def test_imagenet_is_found_in_the_cache_folder(thousand: Path, cache: Path) -> None:
    cache.mkdir()
    (cache / "imagenet").symlink_to(thousand / "imagenet")
    assert fetch("imagenet", None).folder == cache / "imagenet"


def test_all_of_imagenet_is_expected_unless_fewer_images_are_asked_for(thousand: Path) -> None:
    assert (get_info("imagenet").train_size, get_info("imagenet").test_size) == (1_281_167, 50_000)
    (job,) = Grid(encoders=("direct",), datasets=("imagenet",), data_dir=thousand).expand()
    source = fetch("imagenet", thousand)
    message = refusal(lambda: load(source, "train", job.cell.train_samples))
    assert "1281167 train images of imagenet were requested, but there are 1000" in message


def test_imagenet_of_other_than_a_thousand_classes_is_refused(toys: Path) -> None:
    message = refusal(lambda: find("imagenet", toys))
    assert message == f"{toys / 'train'} holds 3 class folders, expected 1,000 of imagenet"


@pytest.mark.parametrize("name", ["imagenet", "imagenet[size=64]"])
def test_imagenet_is_never_downloaded(tmp_path: Path, cache: Path, name: str) -> None:
    assert find(name, tmp_path) is None
    message = refusal(lambda: fetch(name, tmp_path))
    assert "cannot be downloaded: put train/<wnid>/*.JPEG and val/<wnid>/*.JPEG" in message
    assert f"into {tmp_path / 'imagenet'} (looked in" in message and str(cache) in message


def test_photographs_are_not_imported(toys: Path) -> None:
    message = refusal(lambda: datasets.import_files(toys, "imagenet", None))
    assert "is read in place" in message


# --- the real photographs ---------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_dir(), reason="needs shared/datasets/imagenette-sample")
def test_real_photographs_are_read() -> None:
    info = get_info(f"folder:{REAL}[size=64]")
    assert info.name == "folder:imagenette-sample[size=64]"
    assert (info.num_classes, info.train_size, info.test_size) == (10, 400, 150)
    loaded = load(fetch(info.address, None), "train", 100)
    assert loaded.labels.tolist() == list(range(10)) * 10
    mean = (loaded.images / 255).mean(dim=(0, 2, 3))
    assert mean.tolist() == pytest.approx(info.mean, abs=0.05)  # 100 photographs


# --- size and channels from the files ----------------------------------------------------------


def of_one_size(root: Path, mode: str, size: tuple[int, int] = (28, 20), test: str = "val") -> Path:
    for split, count in (("train", 4), (test, 2)):
        for label, name in enumerate("ab"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                seed = 100 * label + 10 * number + len(split)
                photo(seed, size, mode).save(root / split / name / f"{number}.png")
    return root


@pytest.mark.parametrize(("mode", "channels", "colour"), [("L", 1, "grey"), ("RGB", 3, "colour")])
def test_images_of_one_size_keep_it_and_their_channels(
    tmp_path: Path, mode: str, channels: int, colour: str
) -> None:
    root = of_one_size(tmp_path / "small", mode, test="test")
    source = fetch(f"folder:{root}", None)
    assert source.info.shape == (channels, 20, 28)
    assert source.remark() == (
        f"folder:small: 20x28 {colour}, as in the files; the test images are those in test/"
    )
    images = load(source, "train").images.numpy()
    paths = [root / "train" / "ab"[i % 2] / f"{i // 2}.png" for i in range(8)]
    files_read = np.stack([np.asarray(Image.open(path)) for path in paths])
    expected = files_read[:, np.newaxis] if mode == "L" else files_read.transpose(0, 3, 1, 2)
    assert (images == expected).all()
    assert source.info.mean == pytest.approx((expected / 255).mean((0, 2, 3)), abs=1e-6)
    assert source.info.std == pytest.approx((expected / 255).std((0, 2, 3)), abs=1e-6)


def test_grey_images_stay_grey_when_they_are_scaled(tmp_path: Path) -> None:
    root = of_one_size(tmp_path / "small", "L")
    source = fetch(f"folder:{root}[size=16]", None)
    assert source.info.shape == (1, 16, 16)
    colour = of_one_size(tmp_path / "colour" / "small", "RGB")
    assert get_info(f"folder:{colour}[size=16]").mean == (0.485, 0.456, 0.406)
    assert "16x16 grey, scaled" in source.remark()
    pixels = load(source, "train").images
    alike = read_photo(root / "train" / "a" / "0.png", 16)  # three equal channels
    assert (pixels[0].numpy() == alike[:1]).all()


def test_the_size_and_the_channels_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    for mode in ("L", "RGB"):
        root = of_one_size(tmp_path / mode, mode)
        source = fetch(f"folder:{root}", None)
        assert source.fingerprint() != source.class_folders().fingerprint()
    scaled = fetch(f"folder:{root}[size=16]", None)  # as before there were others
    assert scaled.fingerprint() == scaled.class_folders().fingerprint()


@pytest.mark.parametrize("other", [("L", (16, 16)), ("RGB", (28, 20))])
def test_sizes_that_differ_are_scaled_and_one_colour_image_makes_all_colour(
    tmp_path: Path, other: tuple[str, tuple[int, int]]
) -> None:
    root = of_one_size(tmp_path / "small", "L")
    photo(0, other[1], other[0]).save(root / "train" / "a" / "x.png")
    info = get_info(f"folder:{root}")
    assert info.shape == ((1, 224, 224) if other[0] == "L" else (3, 20, 28))
    if other[0] == "L":
        assert "scaled because sizes differ" in fetch(f"folder:{root}", None).remark()


def test_a_test_image_of_another_size_or_colour_is_named(tmp_path: Path) -> None:
    root = of_one_size(tmp_path / "small", "L")
    path = root / "val" / "a" / "0.png"
    for mode, size, says in (
        ("L", (16, 16), "16x16 pixels, expected 28x20 as in the other images"),
        ("RGB", (28, 20), "colour mode RGB, expected grey as in the other images"),
    ):
        photo(0, size, mode).save(path)
        message = refusal(lambda: load(fetch(f"folder:{root}", None), "test"))
        assert says in message and str(path) in message


def test_a_run_of_small_grey_images_says_what_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = of_one_size(tmp_path / "small", "L")
    grid: dict[str, Any] = {"dataset": f"folder:{root}", "epochs": 1, "T": 1, "encoders": "direct"}
    cb.run(**grid, batch_size=4, device="cpu", quiet=True, results=tmp_path / "results")
    assert "20x28 grey, as in the files" in capsys.readouterr().err


# --- images that are not used -----------------------------------------------------------------


def test_images_that_are_not_used_are_counted_in_one_line(toys: Path) -> None:
    decided = "folder:toys[size=16]: 16x16 colour, scaled; the test images are those in val/"
    assert found(toys).remark() == decided
    for number in range(3):
        (toys / "train" / "a" / f"link{number}.png").symlink_to(toys / "gone.png")
    (toys / "train" / "b" / "x.webp").write_bytes(b"")
    (toys / "val" / "b" / "x.BMP").write_bytes(b"")
    (toys / "val" / "b" / "Thumbs.db").write_bytes(b"")
    (toys / "val" / "b" / ".x.webp").write_bytes(b"")
    assert found(toys).remark() == (
        f"{decided}; {toys}: 18 of 23 images are used: 3 broken links, 1 with the extension .bmp, "
        "1 with the extension .webp"
    )


def test_images_in_places_that_are_not_read_are_counted_too(toys: Path) -> None:
    (toys / "train" / "d").symlink_to(toys / "gone")
    (toys / "train" / "loose.png").write_bytes(b"")
    (toys / "train" / "a" / "more").mkdir()
    (toys / "train" / "a" / "more" / "x.png").write_bytes(b"")
    (toys / "train" / "a" / "none").mkdir()
    assert found(toys).class_folders().unused() == {
        "broken links": 1,
        "outside of class folders": 1,
        "in folders below a class": 1,
    }


def test_a_run_says_once_how_many_images_it_uses(
    toys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (toys / "train" / "b" / "x.webp").write_bytes(b"")
    grid: dict[str, Any] = {"dataset": f"folder:{toys}[size=16]", "epochs": 1, "T": 1}
    grid |= {"encoders": "direct,rate", "batch_size": 6, "device": "cpu", "quiet": True}
    grid |= {"backbones": "csnn[width=4]", "decoders": 0}
    cb.run(**grid, results=tmp_path / "results")
    assert capsys.readouterr().err.count("18 of 19 images are used") == 1
