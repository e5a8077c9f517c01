"""``codingbench inspect``: requests, tables, JSON and pictures."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from codingbench.cli.inspect import inspect
from codingbench.cli.main import app as main
from codingbench.datasets import DEFAULT_DATASET
from codingbench.errors import CodingbenchError, SpecError
from codingbench.inspection.coding import DEFAULT_SAMPLES
from codingbench.inspection.observe import Observation

pytestmark = pytest.mark.usefixtures("one_thread")

app = typer.Typer()
app.command()(inspect)

FEW = ("--samples", 20)


def invoke(*arguments: object, columns: int = 80) -> Result:
    runner = CliRunner(env={"COLUMNS": str(columns)})
    run = runner.invoke(app, [str(argument) for argument in arguments])
    if isinstance(run.exception, CodingbenchError):
        raise run.exception
    assert run.exit_code == 0, run.output
    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["latncy"], "unknown encoder 'latncy'; did you mean 'latency'"),
        (["latency[scale=lgo]"], "unknown value for .*scale.* did you mean 'log'"),
        (["rate[gain=0]"], "gain must be positive, got 0.0"),
        (["direct,"], "empty entry in the list 'direct,'"),
        (["direct", "--T", 0], "T must be a whole number of at least 1, got 0"),
        (["direct", "--T", 63], "T must be at most 62 to count patterns, got 63"),
        (["direct", "--samples", 3], "samples must be at least 4, got 3"),
        (
            ["direct", "--samples", 7000],
            "6000 train images, but 7000 were requested",
        ),
        (["direct", "--dataset", "fashion_min"], "did you mean 'fashion_mini'"),
        (["direct", "--backbone", "csn"], "did you mean 'csnn'"),
        (["direct", "--energy", "exat"], "did you mean 'exact'"),
        (["direct", "--technology", "45nm-int9"], "did you mean '45nm-int8'"),
        (["direct", "--format", "jsn"], "unknown format 'jsn'; did you mean 'json'"),
        (["direct", "--plot", "x.jpeg"], r"must end in .png, .pdf, .svg, got '.*/x.jpeg'"),
        (["direct", "--plot", "nowhere/x.png"], "cannot write '.*/nowhere/x.png': No such file"),
    ],
)
def test_wrong_requests_are_one_line(arguments: list[object], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        invoke(*arguments)
    assert "\n" not in str(caught.value)


def test_a_picture_without_matplotlib_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match="needs matplotlib: pip install matplotlib"):
        invoke("direct", "--plot", tmp_path / "x.png")


def test_a_request_that_is_refused_leaves_no_picture_and_keeps_the_old_one(tmp_path: Path) -> None:
    old, new = tmp_path / "old.png", tmp_path / "new.png"
    old.write_bytes(b"old")
    for path in (old, new):
        with pytest.raises(SpecError, match="latncy"):
            invoke("latncy", "--plot", path)
    assert old.read_bytes() == b"old" and not new.exists()


def test_json_has_the_documented_keys() -> None:
    described = json.loads(invoke("gac,rate", *FEW, "--T", 2, "--format", "json").stdout)
    assert set(described) == {"conditions", "codings"}
    assert described["conditions"] == {
        "dataset": "fashion_mini",
        "images": 20,
        "fitted": 10,
        "backbone": "csnn",
        "num_steps": 2,
        "seed": 0,
    }
    gac, rate = described["codings"]
    names = {field.name for field in fields(Observation)}
    assert set(gac) == set(rate) == names | {"remarks"}
    assert gac["encoder"] == "gac" and gac["shape"] == [2, 16, 28, 28]
    assert gac["calibrated_on"] == 10 and rate["calibrated_on"] is None
    assert rate["amplitudes"] is None and rate["batch_dependence"] is None
    assert len(rate["similarity"]["cosine"]) == 2 and len(rate["reconstruction"]["r2"]) == 2
    assert sum(rate["patterns"]["most_frequent"].values()) == pytest.approx(1)


def test_several_codings_are_a_table_with_remarks() -> None:
    text = invoke("gac,rate", *FEW).stdout
    lines = text.splitlines()
    assert [line.split()[0] for line in lines if line[:5].rstrip() in ("gac", "rate")] == [
        "gac",
        "rate",
    ]
    assert "! gac: 5 patterns over time of 16 possible" in text
    assert lines[-1] == "--long: each coding in full"
    assert "batch norm calibrated" not in text and "silent" not in text


def test_long_compares_several_codings_in_a_table_and_then_describes_each() -> None:
    text = invoke("latency,latency[scale=log],direct", *FEW, "--long").stdout
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[0] == "fashion_mini · T = 4 · 20 training images · csnn · seed 0"
    (rows,) = ([i for i, line in enumerate(lines) if line.startswith("latency ")],)
    alone = [lines.index(name) for name in ("latency", "latency[scale=log]", "direct")]
    assert rows and rows[0] < min(alone) and alone == sorted(alone)
    assert "stem untrained, batch norm calibrated on 10 images" in " ".join(text.split())
    assert "…" not in text


def test_one_coding_is_described_without_a_table() -> None:
    text = invoke("latency", *FEW, "--T", 2, columns=100).stdout
    assert "R²\n" not in text and "▪▫" in text
    for heading in ("spikes", "silent", "patterns", "similarity", "R² of images", "batch", "cost"):
        assert any(line.startswith(heading) for line in text.splitlines()), heading
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("steps", [1, 20])
def test_any_number_of_steps_fits_80_columns(steps: int) -> None:
    codings = "latency[scale=log],direct[spiking=false]"
    text = invoke(codings, *FEW, "--T", steps, "--long").stdout
    assert max(map(len, text.splitlines())) <= 80 and "None" not in text


def test_the_cost_follows_the_chosen_convention(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from codingbench.energy import Convention\n"
        "macs = Convention('macs', '', '', lambda n, chip: 1e6 * n['effective_real'])\n"
    )
    options = (*FEW, "--energy", f"{own}:macs", "--format", "json")
    (coding,) = json.loads(invoke("direct", *options).stdout)["codings"]
    assert coding["cost"]["convention"] == "macs"
    assert coding["cost"]["stem_uj"] == coding["cost"]["operations_per_image"]["real"] == 107_584


def test_a_picture_shows_every_coding_with_its_steps(tmp_path: Path) -> None:
    path = tmp_path / "codes.svg"
    printed = invoke("gac,latency", *FEW, "--T", 3, "--plot", path).stdout
    assert printed == invoke("gac,latency", *FEW, "--T", 3).stdout
    drawn = path.read_text()
    for text in ("gac", "latency", "t = 3", "R²", "patterns over time", "▫▫▫", "after step t"):
        assert text in drawn, text
    # per coding three images with three steps each
    assert drawn.count("<image ") == 2 * 3 * (1 + 3)


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("PDF", b"%PDF")])
def test_the_suffix_chooses_the_format_of_the_picture(
    tmp_path: Path, suffix: str, magic: bytes
) -> None:
    path = tmp_path / f"code.{suffix}"
    invoke("latency", *FEW, "--T", 9, "--plot", path)
    assert path.read_bytes().startswith(magic)


def test_help_has_an_example_and_the_defaults() -> None:
    text = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["inspect", "--help"]).stdout
    assert "Example: codingbench inspect " in text
    assert DEFAULT_DATASET in text and str(DEFAULT_SAMPLES) in text


def test_the_command_module_loads_without_torch_pandas_and_matplotlib() -> None:
    code = "import sys, codingbench.cli.inspect\n"
    code += "assert not {'torch', 'pandas', 'scipy', 'numpy', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
