"""A new user's session, from an idea to a table for the paper, in one folder."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from codingbench.cli.main import app
from codingbench.registry import ENCODERS
from codingbench.store.folder import Store

IDEA = '''"""Bands of the cosine transform, low frequencies first, as ON and OFF spikes."""

import math

import torch

from codingbench.encoder import PixelEncoder
from codingbench.registry import register_encoder


def cosines(n):
    k, x = torch.arange(n).reshape(-1, 1), torch.arange(n)
    basis = torch.cos(math.pi * k * (2 * x + 1) / (2 * n)) * math.sqrt(2 / n)
    basis[0] /= math.sqrt(2)
    return basis


@register_encoder("onoff_dct")
class OnoffDct(PixelEncoder):
    emits = "binary"
    channels = 2

    def spikes(self, images, generator):
        rows, columns = (cosines(n).to(images) for n in images.shape[-2:])
        spectrum = rows @ images @ columns.T
        order = torch.arange(len(rows)).reshape(-1, 1) + torch.arange(len(columns))
        band = order * self.num_steps // (int(order.max()) + 1)
        bands = [(spectrum * (band == t).to(images)) for t in range(self.num_steps)]
        parts = torch.stack([rows.T @ each @ columns for each in bands])
        return (torch.cat([parts, -parts], 2) > 0.1).to(images)
'''
NEURON = '''"""A membrane that forgets slowly."""

from codingbench import Neuron, register_neuron
from codingbench.neurons import MultiStepLeaky


@register_neuron("slow")
class Slow(Neuron):
    def __init__(self, *, beta: float = 0.9) -> None:
        super().__init__()
        self.leaky = MultiStepLeaky(beta=beta)

    def forward(self, cur):
        return self.leaky(cur)
'''
GRID = (
    "--encoders ./onoff_dct.py:OnoffDct,direct --dataset ./stripes.npz --T 2 --seeds 2 --epochs 1 "
    "--backbones csnn[width=4] --no-compile"
)


def call(*words: str, code: int = 0) -> str:
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*words])
    assert done.exit_code == code, f"{done.output}{done.exception or ''}"
    return done.output


def stripes(folder: Path) -> None:
    """Write 240 grey images of 8 x 8 pixels: stripes across, down and diagonal, with noise."""
    rows, columns = np.mgrid[:8, :8]
    classes = np.stack([rows, columns, rows + columns]) % 4 < 2
    labels = np.arange(240) % 3
    noise = np.random.default_rng(0).integers(0, 100, (240, 8, 8))
    np.savez(folder / "stripes.npz", x=(100 * classes[labels] + noise).astype("uint8"), y=labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's folder after the run. The process has forgotten the coding, as a new one would."""
    folder = tmp_path_factory.mktemp("journey")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        written = call("new", "encoder", "onoff_dct")
        assert "codingbench run --encoders ./onoff_dct.py:OnoffDct,direct" in written
        assert "class OnoffDct(PixelEncoder):" in Path("onoff_dct.py").read_text()
        Path("onoff_dct.py").write_text(IDEA)
        stripes(folder)
        call("run", *GRID.split())
        ENCODERS._classes.pop("onoff_dct")
        yield folder


@pytest.fixture
def key(folder: Path) -> str:
    cells = Store(folder / "results").read("cells")
    return str(cells.loc[(cells["encoder"] == "onoff_dct") & (cells["seed"] == 0), "key"].item())


@pytest.mark.usefixtures("folder")
def test_the_grid_is_finished_and_runs_no_cell_again() -> None:
    cells = Store(Path("results")).read("cells")
    assert sorted(zip(cells["encoder"], cells["seed"], strict=True)) == [
        ("direct", 0), ("direct", 1), ("onoff_dct", 0), ("onoff_dct", 1),
    ]  # fmt: skip
    assert set(cells["train_samples"]) == {192} and set(cells["test_samples"]) == {48}
    parameters = cells.groupby("encoder")["parameters"].first()
    assert parameters["onoff_dct"] - parameters["direct"] == 9 * 4  # a second channel of the stem


def test_the_coding_keeps_its_contract(folder: Path) -> None:
    text = " ".join(call("check", str(folder / "onoff_dct.py")).split())
    assert re.search(r"encoder onoff_dct: 2\d checks passed, 0 failed", text)


def test_the_coding_is_inspected_on_all_of_few_images(folder: Path) -> None:
    place = f"{folder / 'onoff_dct.py'}:OnoffDct"
    text = call("inspect", place, "--dataset", "./stripes.npz", "--T", "2")
    assert "stripes.npz · T = 2 · 192 training images" in text
    assert "binary, deterministic; 2 x 2 x 8 x 8 values" in text


@pytest.mark.usefixtures("folder")
def test_the_comparison_is_decided_in_words_and_tells_of_the_stem() -> None:
    text = " ".join(call("compare", "onoff_dct", "direct").split())
    assert text.startswith("stripes.npz, recipe quick, 1 epoch, 192 training images, backbone csnn")
    assert re.search(r"onoff_dct (is better than|and) direct|direct is better than onoff_dct", text)
    assert "2 and 1 channels for each channel of the image" in text


@pytest.mark.usefixtures("folder")
def test_the_leaderboard_is_a_latex_table() -> None:
    text = call("leaderboard", "--format", "latex")
    for command in (r"\usepackage{booktabs}", r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(command) == 1
    rows = re.findall(r"^1? ?.*? & (.*?) & 2 & 2 & .* \$\\pm\$ .*\\\\$", text, re.MULTILINE)
    assert sorted(re.sub(r"\\textbf\{(.*)\}", r"\1", row) for row in rows) == [
        "direct", r"onoff\_dct",
    ]  # fmt: skip
    assert r"other rows: onoff\_dct (2 x)." in text


@pytest.mark.usefixtures("folder")
def test_one_cell_is_shown_by_its_coding(key: str) -> None:
    text = call("show", "onoff_dct", "--seed", "0")
    assert re.search(rf"^key +{key}", text, re.MULTILINE)
    assert re.search(r"^encoder.stem.0 +synapse +binary", text, re.MULTILINE)


def test_a_neuron_of_ones_own_is_compared_with_the_usual_one(folder: Path) -> None:
    (folder / "slow.py").write_text(NEURON)
    grid = (
        "--encoders direct --neurons default,./slow.py:Slow --dataset ./stripes.npz --T 2 --seeds 2"
    )
    rest = "--epochs 1 --backbones csnn[width=4] --no-compile --results neurons"
    call("run", *grid.split(), *rest.split())
    assert set(Store(folder / "neurons").read("cells")["neuron"]) == {"default", "slow"}
    text = " ".join(call("compare", "--between", "neurons", "--results", "neurons").split())
    assert re.search(r"default (is better than|and) slow|slow (is better than|and) default", text)


def test_the_report_holds_both_codings(folder: Path) -> None:
    assert call("report").startswith(f"{folder / 'report.html'}: ")
    page = (folder / "report.html").read_text()
    assert "onoff_dct" in page and "stripes.npz" in page


def test_a_new_process_evaluates_all_networks_again(folder: Path) -> None:
    (folder / "onoff_dct.py").rename(folder / "moved.py")  # the results are enough
    done = subprocess.run(
        [sys.executable, "-m", "codingbench", "verify", "--evaluate", "all"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    (folder / "moved.py").rename(folder / "onoff_dct.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("evaluated again, all numbers equal") == 4


@pytest.mark.usefixtures("folder")
def test_the_network_is_exported_to_nir_and_read_back(key: str) -> None:
    text = call("export", key, "--format", "nir")
    assert text.startswith(f"{key}.nir: ")
    assert "The file was read back and run on 16 test images in double precision." in text
    assert Path(f"{key}.nir.MODEL_CARD.md").is_file()


@pytest.mark.usefixtures("folder")
def test_the_accuracy_under_noise_is_measured(key: str) -> None:
    text = call("robustness", key, "--attacks", "gaussian", "--samples", "12")
    assert "12 test images, perturbations of seed 0" in text
    measured = Store(Path("results")).read("robustness")
    assert set(measured["key"]) == {key}
