"""Untrusted files and names: nothing in them is executed, leaves its folder or fills memory."""

import base64
import gzip
import hashlib
import io
import json
import math
import mmap
import os
import pickle
import re
import struct
import sys
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision.datasets
from PIL import Image

from codingbench import datasets
from codingbench.datasets import archives, download, files
from codingbench.errors import CodingbenchError, DatasetError, SpecError, StoreError
from codingbench.recipes.recipe import load_recipe
from codingbench.registry import ENCODERS
from codingbench.schema import SCHEMA, TABLES
from codingbench.store import parts
from codingbench.store.folder import Store
from codingbench.store.migration import SCHEMA_FIELD
from codingbench.store.parts import load
from codingbench.training import checkpoint
from codingbench.training.checkpoint import Checkpoints
from codingbench.views import leaderboard as formats
from codingbench.views.cell import present

KEY = "0123456789abcdef"
MEGABYTE = 2**20
VERSION = {SCHEMA_FIELD: b"%d" % SCHEMA}


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Search for data sets only in the given folder."""
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")


def refusal(call: Callable[[], Any], kind: type[CodingbenchError] = DatasetError) -> str:
    """Return the one-line message of the error."""
    with pytest.raises(kind) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def grown_mb(call: Callable[[], Any]) -> float:
    """Return the largest growth of the process in bytes during the call, 0 without /proc."""
    process = Path("/proc/self")
    if not (process / "clear_refs").exists():
        call()
        return 0.0

    def kilobytes(name: str) -> int:
        return int(re.search(rf"{name}:\s*(\d+) kB", (process / "status").read_text())[1])  # type: ignore[index]

    (process / "clear_refs").write_text("5")  # resets the peak to the present size
    before = kilobytes("VmRSS")
    call()
    return (kilobytes("VmHWM") - before) / 1024


def test_what_fills_the_memory_is_seen() -> None:
    def fill() -> None:
        fresh = mmap.mmap(
            -1, 300 * MEGABYTE
        )  # new memory, not memory that the C library kept from earlier tests
        fresh[::4096] = bytes(len(fresh) // 4096)

    assert grown_mb(fill) > 250 or sys.platform != "linux"


class Bomb:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_the_bomb_of_these_tests_goes_off_when_it_is_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()


# --- checkpoints ------------------------------------------------------------------------------


def test_a_checkpoint_with_a_program_in_it_is_put_aside_and_not_run(tmp_path: Path) -> None:
    mine = Checkpoints(tmp_path / "checkpoints", KEY)
    mine.save({"epoch": 1})
    payload = io.BytesIO()
    torch.save({"key": KEY, "epoch": 2, "rows": Bomb(tmp_path / "ran")}, payload)
    seal = checkpoint._TRAILER + hashlib.sha256(payload.getvalue()).hexdigest().encode()
    (mine.folder / "000002.ckpt").write_bytes(payload.getvalue() + seal)
    with pytest.warns(RuntimeWarning, match="cannot be read by torch"):
        assert mine.load() == {"epoch": 1, "key": KEY}
    assert not (tmp_path / "ran").exists()


# --- parts of results -------------------------------------------------------------------------


def part_of(folder: Path, table: pa.Table, **options: Any) -> Path:
    path = folder / "cells" / f"{KEY}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def cells(row_of: Callable[..., dict[str, Any]], rows: int = 1) -> pa.Table:
    return pa.Table.from_pylist([row_of("cells", key=KEY)] * rows, schema=TABLES["cells"])


def test_programs_in_the_metadata_of_a_part_are_not_run(
    tmp_path: Path, row_of: Callable[..., dict[str, Any]]
) -> None:
    program = pickle.dumps(Bomb(tmp_path / "ran"))
    pandas = {"index_columns": [], "columns": [{"metadata": program.decode("latin1")}]}
    metadata = {b"pandas": json.dumps(pandas).encode(), **VERSION}
    table = cells(row_of).replace_schema_metadata(metadata)
    for index, field in enumerate(table.schema):
        # pyarrow once unpickled the data stored under this name
        extension = {
            "ARROW:extension:name": b"arrow.py_extension_type",
            "ARROW:extension:metadata": program,
        }
        column = table.column(index)
        table = table.set_column(index, field.with_metadata(extension), column)
    part = part_of(tmp_path, table)
    stored = base64.b64decode(pq.ParquetFile(part).metadata.metadata[b"ARROW:schema"])
    assert stored.count(b"arrow.py_extension_type") == len(table.schema)
    load(part, "cells").to_pandas()
    assert not (tmp_path / "ran").exists()


def test_a_part_of_too_many_bytes_or_rows_is_refused_unread(
    tmp_path: Path, row_of: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = part_of(tmp_path, cells(row_of, rows=3))
    monkeypatch.setattr(parts, "MOST_ROWS", 2)
    assert "3 rows, expected at most 2" in refusal(lambda: load(part, "cells"), StoreError)
    with part.open("r+b") as file:
        file.truncate(10 * 2**30)  # a sparse file, which takes no space
    message = refusal(lambda: load(part, "cells"), StoreError)
    assert "10,737,418,240 bytes, expected at most" in message


@pytest.mark.parametrize("column", ["dataset", "encoder", "device_name"])
def test_a_part_cannot_steer_the_terminal(
    tmp_path: Path, row_of: Callable[..., dict[str, Any]], column: str
) -> None:
    tables = {name: [row_of(name, key=KEY)] for name in TABLES if name != "failures"}
    tables["cells"][0][column] = "\x1b]0;evil\x07"
    store = Store(tmp_path)
    store.commit(KEY, tables)
    for show in (lambda: present(store, KEY), lambda: formats.present(store)):
        message = refusal(show, StoreError)
        assert f"column {column!r} has control characters" in message and message.isprintable()


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("images", 0, "has 0 to 0, expected from 1"),
        ("num_classes", -1, "has -1 to -1, expected from 1"),
        ("syops_acs", float("nan"), "has NaN, expected a count"),
        ("spikes", 2**63 - 1, "has 9223372036854775807 to"),
        ("encoder", None, "has a row without a value"),
        ("accuracy", math.inf, "has inf to inf"),
    ],
)
def test_a_value_that_no_run_writes_is_refused_by_its_column(
    tmp_path: Path, row_of: Callable[..., dict[str, Any]], column: str, value: Any, reason: str
) -> None:
    tables = {name: [row_of(name, key=KEY)] for name in TABLES if name != "failures"}
    tables["cells"][0][column] = value
    store = Store(tmp_path)
    store.commit(KEY, tables)
    message = refusal(lambda: formats.present(store), StoreError)
    assert f"table 'cells': column {column!r} {reason}" in message


def test_a_loss_may_be_infinite_and_is_null_in_json(
    tmp_path: Path, row_of: Callable[..., dict[str, Any]]
) -> None:
    tables = {name: [row_of(name, key=KEY)] for name in TABLES if name != "failures"}
    tables["epochs"][0] |= {"train_loss": math.inf, "val_loss": math.nan}
    store = Store(tmp_path)
    store.commit(KEY, tables)
    shown = present(store, KEY, form="json")
    assert isinstance(shown, str)
    (epoch,) = json.loads(shown)["epochs"]
    assert epoch["train_loss"] is None and epoch["val_loss"] is None


NAMES = [
    "../../evil",
    "/etc/passwd",
    "a\0b",
    "two\nlines",
    "x" * 10_000,
    "\u202e\U0001f600é",
    "..",
    "C:\\evil",
    "compact",
    KEY.upper(),
    KEY + "\n",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_is_a_key_but_a_key(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside" / "results"
    store = Store(inside)
    assert not store.is_finished(name)
    refusal(lambda: present(store, name), SpecError)
    for call in (
        lambda: store.commit(name, {t: [] for t in TABLES if t != "failures"}),
        lambda: store.record_failure(name, {}),
        lambda: store.claim(name).__enter__(),
    ):
        with pytest.raises(ValueError, match="key must be 16 hexadecimal digits"):
            call()
    assert not (tmp_path / "inside").exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("..", "compact")])
def test_no_file_of_such_a_name_is_opened_for_a_request(name: str) -> None:
    for call in (
        lambda: load_recipe(name + ".toml"),
        lambda: ENCODERS.resolve(name + ".py:Evil"),
        lambda: ENCODERS.resolve(name),
    ):
        refusal(call, SpecError)


def test_a_label_is_never_a_file_name(
    tmp_path: Path, row_of: Callable[..., dict[str, Any]]
) -> None:
    store = Store(tmp_path / "inside" / "results")
    names = {"dataset": "../../evil", "encoder": "../" * 10 + "evil", "backbone": "/" + "x" * 9999}
    tables = {
        table: [row_of(table, **({} if table == "predictions" else names), key=KEY)]
        for table in TABLES
        if table != "failures"
    }
    store.commit(KEY, tables)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet")}
    assert written == {f"inside/results/{table}/{KEY}.parquet" for table in tables}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside"]


def test_a_class_may_have_a_name_of_any_script(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from codingbench.encoders.rate import RateEncoder\nclass Größe(RateEncoder): pass\n"
    )
    assert ENCODERS.resolve(f"{file}:Größe").label == "Größe"


# --- archives of data -------------------------------------------------------------------------


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Return the path where CIFAR-100's archive is expected."""
    return tmp_path / "cifar-100-python.tar.gz"


def read(folder: Path, name: str = "cifar100", split: str = "train") -> Any:
    return datasets.load(datasets.locate(name, folder), split)


def member(name: str, content: bytes = b"", **about: Any) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in about.items():
        setattr(info, field, value)
    return info, io.BytesIO(content)


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, io.BytesIO]) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for info, content in members:
            archive.addfile(info, content)


def test_members_of_an_archive_go_nowhere(tmp_path: Path, cifar: Path) -> None:
    write_tar(
        cifar,
        member("../evil", b"x"),
        member(str(tmp_path / "absolute"), b"x"),
        member("cifar-100-python/link", type=tarfile.SYMTYPE, linkname="/etc"),
        member("cifar-100-python/link/evil", b"x"),
        member("device", type=tarfile.CHRTYPE),
    )
    message = refusal(lambda: read(tmp_path))
    assert "it holds no file cifar-100-python/train" in message
    assert list(tmp_path.iterdir()) == [cifar] and not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_a_link_in_place_of_a_batch_is_not_followed(
    tmp_path: Path, cifar: Path, kind: bytes
) -> None:
    write_tar(cifar, member("cifar-100-python/train", type=kind, linkname="/etc/passwd"))
    assert "link, a device" in refusal(lambda: read(tmp_path))


def gzipped_zeros(path: Path, start: bytes, megabytes: int) -> None:
    """Return a gzip file that expands to ``start`` and many megabytes of zeros."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start)
        for _ in range(megabytes):
            file.write(bytes(MEGABYTE))


@pytest.mark.parametrize("name", ["cifar-100-python/train", "another"])
def test_a_member_that_expands_beyond_the_data_set_is_refused(
    tmp_path: Path, cifar: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MOST_CIFAR_BYTES", 20 * MEGABYTE)
    gzipped_zeros(cifar, member(name, size=300 * MEGABYTE)[0].tobuf(), 300)
    assert grown_mb(lambda: refusal(lambda: read(tmp_path))) < 200
    assert "expands to more than 20,971,520 bytes" in refusal(lambda: read(tmp_path))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_announces_gigabytes_is_refused(
    tmp_path: Path, cifar: Path, kind: bytes
) -> None:
    info = member("x", size=8 * 2**30 - 1)[0]
    info.type = kind
    gzipped_zeros(cifar, info.tobuf(tarfile.GNU_FORMAT), 1)
    assert str(cifar) in refusal(lambda: read(tmp_path))


def test_of_a_pickle_with_the_right_md5_sum_only_arrays_are_made(
    tmp_path: Path, cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = pickle.dumps({"data": Bomb(tmp_path / "ran"), "fine_labels": []}, protocol=2)
    pair = ["train", hashlib.md5(program).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "train_list", [pair])
    write_tar(cifar, member("cifar-100-python/train", program))
    assert "mkdir, expected only arrays" in refusal(lambda: read(tmp_path))
    assert not (tmp_path / "ran").exists()


def idx_files(folder: Path) -> Path:
    """Write MNIST's files with one image each; return the file of the training images."""
    folder.mkdir()
    for start in ("train", "t10k"):
        for kind, sizes in (("images-idx3", (1, 28, 28)), ("labels-idx1", (1,))):
            header = struct.pack(f">4B{len(sizes)}I", 0, 0, 8, len(sizes), *sizes)
            content = bytes(784 if len(sizes) == 3 else 1)
            path = folder / f"{start}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(header + content))
    return folder / "train-images-idx3-ubyte.gz"


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ((1, 28, 28), "more than 784 bytes of content"),
        ((2**32 - 1, 28, 28), "it states 4,294,967,295 entries, expected at most 60,000"),
        ((1, 2**31, 2**31), "expected 28x28 pixels, got 2147483648x2147483648"),
    ],
)
def test_an_idx_file_that_expands_beyond_the_data_set_is_refused(
    tmp_path: Path, sizes: tuple[int, ...], reason: str
) -> None:
    images = idx_files(tmp_path / "mnist")
    gzipped_zeros(images, struct.pack(">4B3I", 0, 0, 8, 3, *sizes), 300)
    assert grown_mb(lambda: refusal(lambda: read(tmp_path, "mnist"))) < 150
    assert reason in refusal(lambda: read(tmp_path, "mnist"))


# --- Parquet shards of images -----------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    """Return the header of a PNG file with the given size, without pixels."""
    head = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (head, data, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def shards(folder: Path, content: bytes, rows: int = 20, **options: Any) -> Path:
    """Write CIFAR-10 with the same image in every row; return the training shard."""
    folder.mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": content, "path": None}] * rows, kind)
    table = pa.table({"img": images, "label": [row % 10 for row in range(rows)]})
    for split in ("train", "test"):
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet", **options)
    return folder / "train-00000-of-00001.parquet"


@pytest.mark.parametrize("sides", [(2**31 - 1, 2**31 - 1), (30_000, 30_000), (12_000, 12_000)])
def test_an_image_of_millions_of_pixels_is_refused_undecoded(
    tmp_path: Path, sides: tuple[int, int]
) -> None:
    shards(tmp_path / "cifar10", png(*sides))
    assert grown_mb(lambda: refusal(lambda: read(tmp_path, "cifar10"))) < 100
    assert "image in row 0" in refusal(lambda: read(tmp_path, "cifar10"))


def test_an_image_is_of_a_format_that_pillow_decodes_by_itself(tmp_path: Path) -> None:
    encapsulated = io.BytesIO()
    Image.new("RGB", (32, 32)).save(
        encapsulated, "EPS"
    )  # a program that Pillow would run with Ghostscript
    shards(tmp_path / "cifar10", encapsulated.getvalue()[:4000])
    assert "expected a PNG or JPEG file" in refusal(lambda: read(tmp_path, "cifar10"))


def test_one_image_repeated_in_every_row_does_not_fill_the_memory(tmp_path: Path) -> None:
    shard = shards(tmp_path / "cifar10", bytes(MEGABYTE), rows=300, compression="zstd")
    assert shard.stat().st_size < 10_000
    assert grown_mb(lambda: refusal(lambda: read(tmp_path, "cifar10"))) < 200
    message = refusal(lambda: read(tmp_path, "cifar10"))
    assert "1,048,576 bytes, expected at most 16,384" in message


def test_a_column_that_expands_beyond_the_images_is_refused(tmp_path: Path) -> None:
    shards(tmp_path / "cifar10", bytes(MEGABYTE), compression="zstd", use_dictionary=False)
    message = refusal(lambda: read(tmp_path, "cifar10"))
    assert "20 images expand to 20,97" in message and "expected at most 16,384 each" in message


def test_more_images_than_the_data_set_has_are_refused(tmp_path: Path) -> None:
    shards(tmp_path / "cifar10", b"", rows=50_001)
    message = refusal(lambda: read(tmp_path, "cifar10"))
    assert "it states 50,001 images, expected at most 50,000" in message


def test_a_data_file_of_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    shard = shards(tmp_path / "cifar10", b"")
    with shard.open("r+b") as file:
        file.truncate(10 * 2**30)
    source = datasets.locate("cifar10", tmp_path)
    for call in (source.fingerprint, lambda: datasets.load(source, "train")):
        assert "10,737,418,240 bytes, expected at most" in refusal(call)


def test_a_pipe_in_place_of_a_data_file_is_not_waited_for(tmp_path: Path) -> None:
    shard = shards(tmp_path / "cifar10", b"")
    shard.unlink()
    os.mkfifo(shard)
    source = datasets.locate("cifar10", tmp_path)
    for call in (source.fingerprint, lambda: datasets.load(source, "train")):
        assert "is not a file" in refusal(call)


# --- downloads --------------------------------------------------------------------------------


def test_only_https_is_fetched(tmp_path: Path) -> None:
    urls = ["http://localhost/x", "ftp://localhost/x", "file:///etc/passwd", "/etc/passwd"]
    for start in range(len(urls)):
        message = refusal(lambda at=start: download.download(urls[at:], tmp_path / "x", "0" * 32))  # type: ignore[misc]
        assert message == f"cannot download {urls[start]}: expected an https address"
    assert list(tmp_path.iterdir()) == []


def test_a_redirection_away_from_https_is_not_followed() -> None:
    request = urllib.request.Request("https://localhost/x")
    redirects = download._SafeRedirects()
    arguments = (request, io.BytesIO(), 302, "Found", urllib.request.Request("https://x").headers)
    assert redirects.redirect_request(*arguments, "https://localhost/y") is not None  # type: ignore[arg-type]
    for url in ("http://localhost/y", "file:///etc/passwd"):
        with pytest.raises(urllib.error.URLError, match="expected https"):
            redirects.redirect_request(*arguments, url)  # type: ignore[arg-type]


class Endless(io.RawIOBase):
    """An endless response without a stated length."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.sent = 0

    def readinto(self, buffer: Any) -> int:
        self.sent += len(buffer)
        return len(buffer)

    def readable(self) -> bool:
        return True


def test_a_download_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = Endless()

    class Opener:
        def open(self, url: str, timeout: float) -> Endless:
            return endless

    monkeypatch.setattr(download, "MOST_BYTES", MEGABYTE)
    monkeypatch.setattr(urllib.request, "build_opener", lambda *_: Opener())
    path = tmp_path / "x"
    message = refusal(lambda: download.download(["https://localhost/x"], path, "0" * 32))
    assert "more than 1,048,576 bytes" in message
    assert path.stat().st_size <= MEGABYTE and endless.sent < 2 * MEGABYTE


# --- files that users write -------------------------------------------------------------------


def test_a_plugin_that_leaves_when_imported_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "leaves.py"
    file.write_text("import sys\nsys.exit(0)\n")
    assert "SystemExit" in refusal(lambda: ENCODERS.resolve(f"{file}:Mine"), SpecError)


def test_a_recipe_of_megabytes_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "large.toml"
    file.write_bytes(b"#" * (2 * MEGABYTE))
    assert "too large" in refusal(lambda: load_recipe(str(file)), SpecError)
