"""Plug-ins of installed distributions: small real ones on the search path."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from codingbench.cells.grid import Grid
from codingbench.cli.main import app
from codingbench.datasets import dataset_names, find, get_info, import_files, load
from codingbench.errors import CodingbenchError, DatasetError, SpecError
from codingbench.executors.base import Outcome
from codingbench.executors.processes import Processes
from codingbench.plugins.syntax import syntax_digest
from codingbench.registry import BACKBONES, ENCODERS, register_encoder
from codingbench.store.folder import Store
from tests.grids import run
from tests.test_datasets import png, write_shard

CODES = '''
"""Toy coding: rate coding at half the rate."""

from codingbench.encoders.rate import RateEncoder


class Toy(RateEncoder):
    def __init__(self, setting, *, gain: float = 0.5) -> None:
        super().__init__(setting, gain=gain)


class Half(Toy):
    pass


class Unrelated:
    pass


number = 3
'''
NETS = """
from codingbench.backbones.csnn import CSNN


class ToyNet(CSNN):
    def __init__(self, task, *, width: int = 4) -> None:
        super().__init__(task, width=width)
"""
IMAGES = """
from pathlib import Path

from codingbench.datasets import DatasetInfo, PublishedDataset


def published(name="toy_images", folder="shards", **other) -> PublishedDataset:
    about = dict(
        num_classes=2, channels=1, height=10, width=12, mean=(0.1,), std=(0.2,), train_size=12,
        test_size=6,
    )
    info = DatasetInfo(
        name, "Toy images", **(about | other), licence="CC0", about="dark and bright"
    )
    return PublishedDataset(info, Path(__file__).parent / folder)


toy_images = published()
unlike = published("another")
lost = published("lost", folder="nowhere")
"""
FILES = {
    "__init__.py": "",
    "codes.py": CODES,
    "nets.py": NETS,
    "images.py": IMAGES,
    "broken.py": "1 / 0\n",
    "four_channels.py": "from toy_codes.images import published\nx = published(channels=4)\n",
    "no_spread.py": "from toy_codes.images import published\nx = published(std=(0.0,))\n",
    "no_class.py": "from toy_codes.images import published\nx = published(num_classes=0)\n",
    "no_tuple.py": "from toy_codes.images import published\nx = published(mean=0.1)\n",
}
PUBLISHED = """
[codingbench.encoders]
toy = toy_codes.codes:Toy
toy_broken = toy_codes.broken:Toy
toy_absent = toy_codes.codes:Absent
toy_number = toy_codes.codes:number
toy_unrelated = toy_codes.codes:Unrelated
[codingbench.backbones]
toy_net = toy_codes.nets:ToyNet
[codingbench.datasets]
toy_images = toy_codes.images:toy_images
toy_misnamed = toy_codes.images:unlike
toy_class = toy_codes.codes:Toy
lost = toy_codes.images:lost
four_channels = toy_codes.four_channels:x
no_spread = toy_codes.no_spread:x
no_class = toy_codes.no_class:x
no_tuple = toy_codes.no_tuple:x
[console_scripts]
toy = toy_codes.codes:main
"""


def install(folder: Path, distribution: str, entry_points: str, version: str = "1.0") -> None:
    """Write the metadata of a distribution, as an installer does."""
    metadata = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    heading = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    (metadata / "METADATA").write_text(heading)
    (metadata / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the distribution ``toy-codes``, first on the search path."""
    folder = tmp_path / "site"
    install(folder, "toy-codes", PUBLISHED)
    package = folder / "toy_codes"
    package.mkdir()
    for name, text in FILES.items():
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy_codes"]:
        del sys.modules[name]


def refusal(call: Callable[[], Any], kind: type[CodingbenchError] = SpecError) -> str:
    with pytest.raises(kind) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def refused_encoder(text: str) -> str:
    return refusal(lambda: ENCODERS.resolve(text))


def cli(*words: str) -> str:
    """Run a command with a wide terminal; return its output."""
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_published_names_are_listed_and_nothing_is_imported(site: Path) -> None:
    assert {"toy", "toy_broken", "direct"} <= set(ENCODERS.names())
    assert {"toy_net", "csnn"} <= set(BACKBONES.names())
    assert {"toy_images", "lost", "fashion_mini"} <= set(dataset_names())
    assert not [name for name in sys.modules if name.startswith("toy_codes")]


def test_a_published_plugin_is_asked_for_by_its_name(site: Path) -> None:
    plugin = ENCODERS.resolve("toy[gain=0.25]")
    assert (plugin.label, plugin.params) == ("toy[gain=0.25]", (("gain", 0.25),))
    assert plugin.cls.__module__ == "toy_codes.codes"
    rate = "ef121f07bc601334dbb709299e8c03fcba858d8c574a8f7781c67e24594fe118"  # of its base class
    both = syntax_digest(CODES.encode()) + bytes.fromhex(rate)
    assert plugin.code == hashlib.sha256(both).hexdigest()[:12]
    assert ENCODERS.resolve("toy[gain=0.5]").label == "toy"
    assert BACKBONES.resolve("toy_net").params == (("width", 4),)


def test_asked_for_by_its_module_it_carries_its_published_name(site: Path) -> None:
    assert ENCODERS.resolve("toy_codes.codes:Toy") == ENCODERS.resolve("toy")


def test_a_misspelt_published_name_is_put_right(site: Path) -> None:
    assert refused_encoder("toyy").startswith("unknown encoder 'toyy'; did you mean 'toy'?")
    wrong = refusal(lambda: get_info("toy_image"))
    assert wrong.startswith("unknown data set 'toy_image'; did you mean 'toy_images'?")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "toy_broken",
            "encoder 'toy_broken' of toy-codes 1.0 cannot be imported: ZeroDivisionError: ",
        ),
        ("toy_absent", "encoder 'toy_absent' of toy-codes 1.0 cannot be imported: AttributeError"),
        ("toy_number", "'toy_number' of toy-codes 1.0 is not a subclass of codingbench.encoder."),
        ("toy_unrelated", "'toy_unrelated' of toy-codes 1.0 is not a subclass of codingbench"),
    ],
)
def test_what_is_published_but_cannot_be_used_is_one_line_that_names_its_owner(
    site: Path, name: str, message: str
) -> None:
    assert refused_encoder(name).startswith(message)
    assert ENCODERS.resolve("direct").label == "direct"


def test_a_shipped_name_published_again_is_refused_when_asked_for_and_not_before(
    site: Path,
) -> None:
    entry = "[codingbench.encoders]\nlatency = toy_codes.codes:Toy\n"
    install(site, "greedy", f"{entry}[codingbench.datasets]\nmnist = toy_codes.images:toy_images\n")
    names = "is published by codingbench and by greedy 1.0; names must be unique"
    assert refused_encoder("latency[scale=log]") == f"encoder 'latency' {names}"
    assert refusal(lambda: get_info("mnist")) == f"data set 'mnist' {names}"
    assert ENCODERS.resolve("rate").label == "rate"
    assert get_info("cifar10").num_classes == 10
    # another plug-in may still derive from its class
    mine = site / "mine.py"
    mine.write_text("from codingbench.encoders.latency import LatencyEncoder as Mine\n")
    assert ENCODERS.resolve(f"{mine}:Mine").label == "latency"


def test_a_name_published_by_two_distributions_is_refused_with_both(site: Path) -> None:
    install(site, "second", "[codingbench.encoders]\ntoy = toy_codes.broken:Toy\n", "0.2")
    assert refused_encoder("toy") == (
        "encoder 'toy' is published by second 0.2 and by toy-codes 1.0; names must be unique"
    )
    assert "toy_broken" in ENCODERS.names()


def test_of_a_distribution_found_twice_the_first_on_the_path_counts(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site.parent / "older", "toy-codes", PUBLISHED, "0.9")
    monkeypatch.setattr(sys, "path", [*sys.path, str(site.parent / "older")])
    assert ENCODERS.resolve("toy").label == "toy"


@pytest.mark.parametrize("file", ["entry_points.txt", "METADATA"])
def test_broken_metadata_of_others_publish_nothing_and_break_nothing(site: Path, file: str) -> None:
    install(site, "damaged", "[codingbench.encoders]\nharm = harm:Harm\n")
    (site / "damaged-1.0.dist-info" / file).write_bytes(b"\xff\xfe[[[ harm\nno equals sign")
    assert {"direct", "toy"} <= set(ENCODERS.names())
    assert ENCODERS.resolve("toy").label == "toy"


def test_a_file_cannot_take_the_name_of_a_published_plugin(site: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from codingbench.registry import register_encoder\n"
        f"@register_encoder('toy')\n{CODES[CODES.index('class Toy') :]}".replace(
            "(RateEncoder)", ""
        )
    )
    message = refused_encoder(f"{mine}:Toy")
    assert message.endswith("ValueError: encoder 'toy' is already registered by toy-codes 1.0")


def test_a_published_class_may_register_its_own_name(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = ENCODERS.get("toy")
    monkeypatch.setitem(ENCODERS._classes, "toy", cls)  # removed at the end of the test
    assert register_encoder("toy")(cls) is cls
    assert ENCODERS.get("toy") is cls


def test_the_lists_show_where_each_is_from_and_what_is_broken(site: Path) -> None:
    lines = [" ".join(line.split()) for line in cli("list", "encoders").splitlines()]
    assert "toy[gain=0.5] Toy coding: rate coding at half the rate. (from toy-codes 1.0)" in lines
    assert any(line.startswith("toy_broken encoder 'toy_broken' of toy-codes") for line in lines)
    assert any(line.startswith("direct[spiking=true]") for line in lines)
    lines = [" ".join(line.split()) for line in cli("list", "datasets").splitlines()]
    about = "Toy images: dark and bright (from toy-codes 1.0)"
    assert f"toy_images 2 12 + 6, 1x10x12 {about}" in lines
    assert any(line.startswith("four_channels data set 'four_channels' of toy") for line in lines)


# --- data sets ------------------------------------------------------------------------------------


@pytest.fixture
def toy_images(site: Path) -> Path:
    """Write the shards of ``toy_images``, 12 x 10 pixels; image i has the grey value i."""
    folder = site / "toy_codes" / "shards"
    for split, size in (("train", 12), ("test", 6)):
        shard = folder / f"{split}-00000-of-00001.parquet"
        greys = [png(number, "L", (12, 10)) for number in range(size)]
        write_shard(shard, [i % 2 for i in range(size)], greys)
    return folder


def test_a_published_data_set_is_found_in_its_package_and_loaded(
    toy_images: Path, tmp_path: Path
) -> None:
    source = find("toy_images", tmp_path / "elsewhere")
    assert source is not None and (source.form, source.folder) == ("published", toy_images)
    split = load(source, "train", 4)
    assert split.images.shape == (4, 1, 10, 12)
    assert split.images[:, 0, 0, 0].tolist() == split.images[:, 0, 9, 11].tolist() == [0, 1, 2, 3]
    assert split.labels.tolist() == [0, 1, 0, 1]


def test_its_fingerprint_covers_what_is_said_of_its_pixels(toy_images: Path) -> None:
    before = find("toy_images", None)
    module = toy_images.parent / "images.py"
    module.write_text(IMAGES.replace("std=(0.2,)", "std=(0.25,)"))
    del sys.modules["toy_codes.images"]
    after = find("toy_images", None)
    assert before and after and before.files == after.files
    assert before.fingerprint() != after.fingerprint()


def test_the_list_of_data_sets_shows_it_and_what_is_broken(toy_images: Path) -> None:
    shown = " ".join(cli("data").split())
    source = find("toy_images", None)
    assert source is not None and source.fingerprint() in shown
    assert "Toy images: dark and bright (licence: CC0)" in shown
    assert "data set 'four_channels' of toy-codes 1.0 cannot be imported" in shown
    assert "nowhere holds no {train,test}-*-of-*.parquet of the data set 'lost'" in shown


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("toy_misnamed", "data set 'toy_misnamed' of toy-codes 1.0 has the name 'another'"),
        ("toy_class", "data set 'toy_class' of toy-codes 1.0 must be a PublishedDataset, got a"),
        ("four_channels", "ValueError: toy_images: channels must be 1 or 3, got 4"),
        ("no_spread", "ValueError: toy_images: std must be positive, got (0.0,)"),
        ("no_class", "classes and sizes must be at least 1, got (0, 1, 10, 12, 12, 6)"),
        ("no_tuple", "ValueError: toy_images: mean must be a tuple with one number per channel"),
    ],
)
def test_a_published_data_set_that_is_none_is_refused(site: Path, name: str, reason: str) -> None:
    assert reason in refusal(lambda: get_info(name))
    assert get_info("fashion_mini").num_classes == 10


def test_shards_that_are_not_there_are_asked_for_where_they_belong(
    toy_images: Path, tmp_path: Path
) -> None:
    assert "nowhere holds no {train,test}" in refusal(lambda: find("lost", tmp_path), DatasetError)
    (toy_images / "test-00000-of-00001.parquet").unlink()
    assert "the shard test-" in refusal(lambda: find("toy_images", None), DatasetError)


def test_a_published_data_set_cannot_be_imported_over(toy_images: Path, tmp_path: Path) -> None:
    message = refusal(lambda: import_files(toy_images, "toy_images", tmp_path), DatasetError)
    assert message.endswith("is part of the distribution that publishes it and cannot be imported")


def test_other_processes_find_what_is_published_and_importable_by_name(
    toy_images: Path, tmp_path: Path
) -> None:
    grid = Grid(
        encoders=("toy", "toy_codes.codes:Half[gain=0.25|1.0]"),
        backbones=("toy_net",),
        datasets=("toy_images",),
        num_steps=(1,),
        epochs=1,
        batch_size=4,
    )
    outcome, heard = run(Processes(1), grid, tmp_path / "results")
    assert (outcome, heard.failed) == (Outcome(done=3, skipped=0, failed=0), {})
    cells = Store(tmp_path / "results").read("cells")
    assert sorted(cells["encoder"]) == ["Half[gain=0.25]", "Half[gain=1.0]", "toy"]
    assert set(cells["dataset"]) == {"toy_images"} and set(cells["backbone"]) == {"toy_net"}
