"""Runs of the short form of each benchmark, without assertions about speed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import chromium
import pytest
import torch

from codingbench.backbone import build_network
from codingbench.encoder import Task
from codingbench.registry import BACKBONES, ENCODERS

pytestmark = pytest.mark.thorough

FOLDER = Path(__file__).parent / "benchmarks"


def short_form(name: str, tmp_path: Path) -> tuple[dict[str, Any], str]:
    """Return the one result of ``bench_<name>.py --short``, and its output."""
    report = tmp_path / f"{name}.json"
    command = [sys.executable, str(FOLDER / f"bench_{name}.py"), "--short", "--json", str(report)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (result,) = json.loads(report.read_text())["results"]
    return result, run.stdout


def test_the_counting_benchmark_times_all_counters(tmp_path: Path) -> None:
    result, printed = short_form("counting", tmp_path)
    assert set(result["ratio"]) == {
        "plain",
        "codingbench",
        "NeuroBench 2.3.0",
        "SpikingJelly 2.0.0",
    }
    assert result["ratio"]["plain"] == 1 and result["ratio"]["codingbench"] > 1
    assert len(result["wall_s"]["codingbench"]) == result["rounds"] == 2
    assert "csnn, direct, T=2" in printed and "NeuroBench" in printed


def test_the_training_benchmark_times_all_neurons_against_relu(tmp_path: Path) -> None:
    result, printed = short_form("training", tmp_path)
    for kind in ("training step", "evaluation"):
        assert len(result[kind]) == 7 and result[kind]["ReLU"]["ratio"] == 1
        assert all(len(way["wall_s"]) == result["rounds"] == 2 for way in result[kind].values())
    assert 0 < result["peak_mb"]["ours, compiled"] < result["peak_mb"]["SpikingJelly"]
    assert "csnn, T=2" in printed and "SpikingJelly" in printed


def test_the_encoder_benchmark_times_gac_against_its_repeated_form(tmp_path: Path) -> None:
    result, printed = short_form("encoder", tmp_path)
    for kind in ("forward", "forward + backward"):
        for backend in ("eager", "compiled"):
            found = result[f"{kind}, {backend}"]
            assert {len(times) for times in found["wall_s"].values()} == {2}
            low, high = found["spread"]
            assert 0 < low <= found["ratio"] <= high
    assert "csnn, T=2" in printed and "forward + backward: repeated form / reuse" in printed


def test_the_grid_benchmark_runs_one_cell_on_both_sides(tmp_path: Path) -> None:
    result, printed = short_form("grid", tmp_path)
    assert set(result["accuracy"]) == set(result["wall_s"]) == {"codingbench", "snntorch script"}
    for cells in result["accuracy"].values():
        assert list(cells) == ["gac, T=2"] and 0 <= cells["gac, T=2"] <= 1
    (ours,), (theirs,) = (result["wall_s"][side] for side in ("codingbench", "snntorch script"))
    assert result["ratio"] == theirs / ours and "gac, T=2" in printed


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")  # snntorch's
@pytest.mark.parametrize("encoder", ["direct", "latency", "gac"])
def test_the_snntorch_script_of_the_grid_benchmark_has_the_same_network(encoder: str) -> None:
    task = Task(4, 10, 3, 16, 16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    plugins = ENCODERS.resolve(encoder), BACKBONES.resolve("csnn")
    ours: Any = build_network(*plugins, task, seed=0).eval()
    theirs = snntorch_script().Net(encoder, 4, 3, 10).eval()
    pairs = [(theirs.stem, ours.encoder.stem), (theirs.linear, ours.backbone.head.linear)]
    for block, twin in zip(theirs.blocks, ours.backbone.blocks, strict=True):
        pairs += [(block.conv, twin.convs[0]), (block.shortcut, twin.shortcut)]
    if encoder == "gac":
        pairs += [(theirs.temporal, ours.encoder.temporal), (theirs.spatial, ours.encoder.spatial)]
    for copy, original in pairs:
        copy.load_state_dict(original.state_dict())
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values)[:, None, None] for values in (task.mean, task.std))
    logits = ours(images, torch.Generator()).mean(0)
    found = theirs(images if encoder == "latency" else (images - mean) / std)
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-6)
    weights = ours.encoder.stem[0].weight, theirs.stem[0].weight
    gradients = (
        torch.autograd.grad(x.square().sum(), w)[0]
        for x, w in zip((logits, found), weights, strict=True)
    )
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def snntorch_script() -> Any:
    """Load the script as a module."""
    spec = importlib.util.spec_from_file_location("script", FOLDER / "snntorch_script.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_overhead_benchmark_times_each_part_of_a_cell(tmp_path: Path) -> None:
    result, printed = short_form("overhead", tmp_path)
    parts = ["build", "train", "counted test", "tables", "commit", "train again", "plain test"]
    assert [list(cell) for cell in result["cells_wall_s"]] == [parts] * 3  # the first, two rounds
    first = result["cells_wall_s"][0]
    overhead = sum(first[part] for part in parts[:5]) - first["train again"] - first["plain test"]
    assert abs(result["first_fixed_s"] - overhead) < 1e-9
    whole = result["whole_run_s"]
    assert list(whole) == ["training", "selecting", "measuring", "writing"]
    assert 0 < result["share"] < 1 and min(whole.values()) > 0
    # 250 epochs of the recipe on the 49,000 images that are not held out
    assert abs(whole["training"] * result["images_per_s"]["trained"] - 250 * 49_000) < 1
    assert "csnn, T=2" in printed and "share" in printed


def test_the_decoding_benchmark_times_decoders_and_none(tmp_path: Path) -> None:
    result, printed = short_form("decoding", tmp_path)
    assert (result["images"], result["size"], result["rounds"]) == (40, 224, 2)
    for kind in ("evaluation", "training"):
        assert list(result[kind]) == ["0 decoders", "1 decoders", "2 decoders"]
        assert all(len(speeds) == 2 and min(speeds) > 0 for speeds in result[kind].values())
    assert "images/s of 40 to 224x224" in printed and "2 decoders" in printed


def test_the_gpu_measurements_run_on_a_cpu(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--scale", "tiny", "--minutes", "10", "--out", str(tmp_path)]
    command = [sys.executable, str(FOLDER / "on_gpu.py"), *options]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "on_gpu.json").read_text())
    assert found["facts"]["torch_version"] == torch.__version__ and found["seconds"] > 0
    expected = {"tests", "steps", "profile", "speed", "default run", "encoder", "packing", "bits"}
    assert found["parts"].keys() == expected  # the grid needs --data-dir
    problems = {
        row["name"]: row["problem"]
        for rows in found["parts"].values()
        for row in rows
        if "problem" in row
    }
    assert not problems
    assert all(row["train_ms"] > 0 < row["evaluate_ms"] for row in found["parts"]["steps"])
    assert all(row["is_equal"] for row in found["parts"]["bits"])
    assert "comparisons as expected" in run.stdout


VARIANTS = """
[shared]
encoders = "direct"
backbones = "csnn[width=4]"
dataset = "fashion_mini"
T = 2
recipe = "quick"
train_samples = 200
epochs = 2

[[variant]]
name = "as it is"
[[variant]]
name = "Muon"
"optimizer.name" = "muon"
"optimizer.rest" = { name = "sgd", lr = 0.05, weight_decay = 0.0, momentum = 0.9 }
[[variant]]
name = "a huge rate"
"optimizer.lr" = 1e30
run = { T = 1 }
"""


def test_the_tuning_of_a_recipe_logs_each_variant_and_tests_none(tmp_path: Path) -> None:
    (tmp_path / "variants.toml").write_text(VARIANTS)
    command = [sys.executable, str(FOLDER / "tune_recipe.py"), "variants.toml", "--out", "log"]
    run = subprocess.run(
        [*command, "--device", "cpu"], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    log = json.loads((tmp_path / "log" / "tuning.json").read_text())
    usual, muon, huge = log["rows"]
    assert [len(row["val_accuracy_by_epoch"]) for row in (usual, muon)] == [2, 2]
    assert usual["train_loss"] != muon["train_loss"] and muon["optimizer.name"] == "muon"
    assert huge["run"] == {"T": 1} and "problem" in huge
    assert not [name for name in usual if "test" in name]


def test_the_report_benchmark_writes_and_loads_a_page(tmp_path: Path) -> None:
    if chromium.find() is None:
        pytest.skip("needs Chrome or Chromium")
    result, printed = short_form("report", tmp_path)
    assert (result["cells"], result["rounds"]) == (100, 2)
    assert all(load > 0 for load in result["load_ms"]) and len(result["load_ms"]) == 2
    assert min(result["first_figure_ms"]) > min(result["load_ms"])
    assert result["mb"] > 4.8  # Plotly alone
    assert "first figure in ms" in printed
