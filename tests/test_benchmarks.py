"""The benchmarks run, in their short form; what they measure is read, not asserted."""

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "benchmarks"


def test_the_counting_benchmark_times_ours_and_the_fields_counters(tmp_path: Path) -> None:
    report = tmp_path / "counting.json"
    command = [sys.executable, str(FOLDER / "bench_counting.py"), "--short", "--json", str(report)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (result,) = json.loads(report.read_text())["results"]
    assert set(result["ratio"]) == {
        "plain",
        "codingbench",
        "NeuroBench 2.3.0",
        "SpikingJelly 2.0.0",
    }
    assert result["ratio"]["plain"] == 1 and result["ratio"]["codingbench"] > 1
    assert len(result["wall_s"]["codingbench"]) == result["rounds"] == 2
    assert "csnn, direct, T=2" in run.stdout and "NeuroBench" in run.stdout


def test_the_training_benchmark_times_all_neurons_against_relu(tmp_path: Path) -> None:
    report = tmp_path / "training.json"
    command = [sys.executable, str(FOLDER / "bench_training.py"), "--short", "--json", str(report)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (result,) = json.loads(report.read_text())["results"]
    for kind in ("training step", "evaluation"):
        assert len(result[kind]) == 7 and result[kind]["ReLU"]["ratio"] == 1
        assert all(len(way["wall_s"]) == result["rounds"] == 2 for way in result[kind].values())
    assert 0 < result["peak_mb"]["ours, compiled"] < result["peak_mb"]["SpikingJelly"]
    assert "csnn, T=2" in run.stdout and "SpikingJelly" in run.stdout
