"""Measurements of this project on a GPU, part by part in one command.

    python tests/benchmarks/on_gpu.py --minutes 6 --out DIR [--data-dir DIR]
    python tests/benchmarks/on_gpu.py --quick --out DIR
    python tests/benchmarks/on_gpu.py --device cpu --scale tiny --out DIR

The parts are independent: an error is printed with its traceback, and the next part runs. After
each measurement ``DIR/on_gpu.json`` holds all results so far, so a time limit loses nothing.
``--quick`` only compares trainings with and without CUDA graphs, bit by bit, and times both.
``--scale small`` is for GPUs with less than 24 GiB. Other libraries are measured if installed.
"""

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # makes cuBLAS repeatable

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bench_encoder
import gpu_steps
import graph_checks
import torch
from gpu_steps import Network, PeerSteps, Steps
from graph_checks import Case
from rich.console import Console
from rich.table import Table

from codingbench.neurons.backends import BACKENDS
from codingbench.runtime.devices import keep_freed_memory, resolve_device
from codingbench.runtime.provenance import provenance
from codingbench.store.folder import Store

Row = dict[str, Any]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Scale:
    """Sizes of the measurements."""

    networks: tuple[Network, ...]
    peer_network: Network
    rounds: int
    round_s: float
    checks: int | None  # number of comparisons of bits; None means all
    speed_images: int
    encoder: tuple[str, int, int]  # backbone, T, batch
    default_run: tuple[str, ...]  # options
    packed_run: tuple[str, ...]
    workers: tuple[int, ...]
    tests: tuple[str, ...]


_PACKED = ("--encoders", "direct", "--dataset", "fashion_mini", "--T", "4")
_FEW = ("--train-samples", "100", "--test-samples", "50", "--epochs", "1")
SCALES = {
    "full": Scale(
        networks=(
            Network("ms_resnet18", 4, 256),
            Network("csnn", 4, 256),
            Network("csnn", 4, 50),
            Network("ms_resnet18", 4, 50),
        ),
        peer_network=Network("ms_resnet18", 4, 64),
        rounds=7,
        round_s=0.25,
        checks=None,
        speed_images=20_000,
        encoder=("ms_resnet18", 6, 256),
        default_run=(),
        packed_run=(*_PACKED, "--test-samples", "200", "--seeds", "8", "--epochs", "40"),
        workers=(1, 2, 4, 8),
        tests=(),
    ),
    "tiny": Scale(
        networks=(Network("csnn", 2, 4, "fp32"),),
        peer_network=Network("csnn", 2, 4, "fp32"),
        rounds=2,
        round_s=0.01,
        checks=2,
        speed_images=100,
        encoder=("csnn", 2, 4),
        default_run=("--encoders", "direct", "--T", "2", *_FEW),
        packed_run=(*_PACKED, *_FEW, "--seeds", "2"),
        workers=(1,),
        tests=("tests/test_graphs.py",),
    ),
}
SCALES["small"] = replace(
    SCALES["full"],
    networks=(Network("ms_resnet18", 4, 64), Network("csnn", 4, 256), Network("csnn", 4, 50)),
    peer_network=Network("ms_resnet18", 4, 32),
    encoder=("ms_resnet18", 6, 64),
)


class Report:
    """The results so far, on the terminal and in a file.

    Args:
        folder: the folder in which ``on_gpu.json`` is written.
        limit_s: seconds after which no further measurement starts.
        device: the device to measure.
        scale: sizes of the measurements.
        neurons: backend of the neurons; None means the default of the device.
        data_dir: folder with CIFAR-100; None skips the measurements that need it.
    """

    def __init__(
        self,
        folder: Path,
        limit_s: float,
        device: torch.device,
        scale: Scale,
        neurons: str | None = None,
        data_dir: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.device, self.scale, self.data_dir = (
            folder / "on_gpu.json",
            device,
            scale,
            data_dir,
        )
        is_fused = device.type == "cuda" and "fused" in BACKENDS
        self.neurons = neurons or ("fused" if is_fused else "eager")
        self.started, self.limit_s = time.perf_counter(), limit_s
        self.facts = provenance(device, names_host=False)
        self.parts: dict[str, list[Row]] = {}
        self.console = Console(width=130, highlight=False)

    @property
    def left_s(self) -> float:
        """Seconds until the limit."""
        return self.limit_s - (time.perf_counter() - self.started)

    def measure(self, part: str, name: str, run: Callable[[], Row]) -> Row:
        """Run one measurement unless the time is up; store and return its row."""
        row: Row = {"name": name}
        started = time.perf_counter()
        if self.left_s <= 0:
            row["problem"] = "not measured: the time was up"
        else:
            try:
                row |= run()
            except Exception as error:
                if not isinstance(error, ImportError):
                    traceback.print_exc()
                row["problem"] = f"{type(error).__name__}: {error}"
        row["took_s"] = time.perf_counter() - started
        self.parts.setdefault(part, []).append(row)
        self.write()
        return row

    def write(self) -> None:
        """Write all results so far, replacing the file."""
        seconds = time.perf_counter() - self.started
        content = {"facts": self.facts, "seconds": seconds, "parts": self.parts}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(content, indent=2, default=str) + "\n")
        part.replace(self.path)

    def say(self, line: str) -> None:
        """Print a line at once."""
        self.console.print(line, markup=False, soft_wrap=True)


# --- bits and speed of graphs ---------------------------------------------------------------------


def bits(report: Report, first: int = 0, last: int | None = None) -> None:
    """Compare trainings from CUDA graphs with eager ones."""
    checks = list(graph_checks.checks(report.device, report.neurons))[: report.scale.checks]
    for name, check in checks[first:last]:
        _say_bits(report, report.measure("bits", name, check))


def _say_bits(report: Report, row: Row) -> None:
    if "is_equal" not in row:
        report.say(f"{row['name']}: {row['problem']}")
        return
    verdict = "equal" if row["is_equal"] else f"DIFFERENT: {row['difference']}"
    if not row["is_equal"] and not row.get("eager_repeats_itself", True):
        verdict += " (two eager trainings differ, too)"
    if not row.get("is_as_expected", True):
        verdict += " UNEXPECTED: wrongly captured or refused"
    details = ""
    if "graphs" in row:
        details = (
            f", {row['graphs']} graphs in {row['capture_s']:.2f} s"
            f", eager {row['eager_s']:.1f} s, replayed {row['replayed_s']:.1f} s"
        )
        if row["refusals"]:
            details += f", eager because {'; '.join(row['refusals'])}"
    report.say(f"{row['case']}: {verdict}{details}")


def speed(report: Report, is_short: bool = False) -> None:
    """Measure the images per second of csnn in a training, with and without graphs."""
    images = min(report.scale.speed_images, 6_000) if is_short else report.scale.speed_images
    precision = "fp32" if report.device.type == "cpu" else "bf16"
    direct = Case("direct", batch=50, precision=precision, neurons=report.neurons)
    cases = [direct] if report.scale.checks else [direct, replace(direct, encoder="rate")]
    if not report.scale.checks:
        cases += [replace(direct, precision="fp32"), replace(direct, encoder="gac")]
    for case in cases[:3] if is_short else cases:
        for graphs in (True, False):
            run = partial(graph_checks.throughput, case, images, graphs, report.device)
            row = report.measure("speed", f"{case}, {'graphs' if graphs else 'eager'}", run)
            if "problem" in row:
                report.say(f"{row['name']}: {row['problem']}")
                continue
            report.say(
                f"{row['name']}: {row['images_per_s']:,.0f} images/s, epochs of "
                f"{row['first_epoch_s']:.2f} s and {row['last_epoch_s']:.2f} s, "
                f"{row['graphs']} graphs in {row['capture_s']:.2f} s"
            )


def quick(report: Report) -> None:
    """Run the most informative comparisons of bits, the speed, then all other comparisons."""
    bits(report, last=12)
    speed(report, is_short=True)
    bits(report, first=12)


# --- steps ----------------------------------------------------------------------------------------


def steps(report: Report) -> None:
    """Measure steps of each network with all replacements of its neurons."""
    for network in report.scale.networks:
        for variant in gpu_steps.variants(report.neurons):
            make = partial(Steps, network, variant, report.device)
            _measure_steps(report, network, variant.name, make)


def peers(report: Report) -> None:
    """Measure steps with the neurons of other libraries, beside ours and ReLU, on one network."""
    network = report.scale.peer_network
    shown = (gpu_steps.RELU, f"ours: {report.neurons}, graphs")
    for variant in gpu_steps.variants(report.neurons):
        if variant.name in shown:
            make = partial(Steps, network, variant, report.device)
            _measure_steps(report, network, variant.name, make)
    for name in gpu_steps.PEERS:
        _measure_steps(report, network, name, partial(PeerSteps, network, name, report.device))


def _measure_steps(
    report: Report, network: Network, name: str, make: Callable[[], Steps | PeerSteps]
) -> None:
    scale = report.scale
    run = partial(gpu_steps.measure, make, network, report.device, scale.rounds, scale.round_s)
    row = report.measure("steps", f"{network}: {name}", run)
    row |= {"network": str(network), "variant": name}
    gpu_steps.relate([one for one in report.parts["steps"] if one["network"] == str(network)])
    report.write()
    if "problem" in row:
        report.say(f"{row['name']}: {row['problem']}")
    else:
        report.say(
            f"{row['name']}: {row['train_ms']:.2f} ms, evaluation {row['evaluate_ms']:.2f} ms"
            f"{''.join('; ' + reason for reason in row.get('refusals', []))}"
        )


def profile(report: Report) -> None:
    """Kernels that take most of a training step of the largest network, without graphs."""
    network = report.scale.networks[0]
    ours = next(one for one in gpu_steps.variants(report.neurons) if "no graphs" in one.name)
    make = partial(Steps, network, ours, report.device)
    name = f"{network}: {ours.name}"
    row = report.measure("profile", name, partial(gpu_steps.profile, make, report.device))
    report.say(f"profile, {name}: {row.get('total_ms', 0):.2f} ms of kernels{_problem(row)}")
    for kernel in row.get("kernels", []):
        report.say(f"  {kernel['ms']:8.3f} ms {kernel['calls']:5.0f} x {kernel['name'][:100]}")


# --- whole runs -----------------------------------------------------------------------------------


def default_run(report: Report) -> None:
    """Measure ``codingbench run`` without options."""
    _whole_run(report, "default run", "no options", report.scale.default_run)


def grid(report: Report) -> None:
    """Measure a grid: gac and direct at three T with three seeds on CIFAR-100."""
    if report.data_dir is None:
        report.say("grid: not measured without --data-dir")
        return
    options = ("--encoders", "gac,direct", "--dataset", "cifar100", "--T", "2,4,6", "--seeds", "3")
    _whole_run(report, "grid", "one process", (*options, "--data-dir", str(report.data_dir)))


def packing(report: Report) -> None:
    """Measure eight small cells with several numbers of parallel processes."""
    for workers in report.scale.workers:
        options = (*report.scale.packed_run, "--workers", str(workers))
        _whole_run(report, "packing", f"{workers} workers", options)


def _whole_run(report: Report, part: str, name: str, options: Sequence[str]) -> None:
    row = report.measure(part, name, partial(_run_cells, report, options))
    report.say(
        f"{part}, {name}: {row.get('wall_s', 0):.1f} s, {row.get('cells', 0)} cells, "
        f"{row.get('images_per_s', 0):,.0f} trained images/s in all{_problem(row)}"
    )


def _run_cells(report: Report, options: Sequence[str]) -> Row:
    """Run a grid in a separate process, which is ended when the time is up."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "codingbench", "run", *options, "--results", folder]
        command += ["--device", str(report.device)]
        started = time.perf_counter()
        ended, output = _run_process(command, max(5.0, report.left_s))
        wall_s = time.perf_counter() - started
        cells = Store(Path(folder)).read("cells")
    trained = float((cells["train_samples"] * cells["epochs"]).sum()) if len(cells) else 0.0
    row: Row = {"options": list(options), "wall_s": wall_s, "cells": len(cells)}
    row["images_per_s"] = trained / wall_s
    row["cell_wall_s"] = cells["wall_s"].tolist() if len(cells) else []
    row["cell_images_per_s"] = cells["images_per_s"].tolist() if len(cells) else []
    if ended != 0:
        row["problem"] = "the time was up" if ended is None else f"exit status {ended}"
        row["output"] = output[-2000:]
    return row


def _run_process(command: Sequence[str], limit_s: float) -> tuple[int | None, str]:
    """Return the exit status (None if the time was up) and the output."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit_s)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            process.terminate()  # it keeps finished cells and ends its workers
            try:
                output, _ = process.communicate(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                output, _ = process.communicate()
            return None, output


def _problem(row: Row) -> str:
    return f" ({row['problem']})" if "problem" in row else ""


# --- the rest -------------------------------------------------------------------------------------


def tests(report: Report) -> None:
    """Run the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors"]  # of files whose packages are not installed
    row = report.measure(
        "tests", "cuda", partial(_run_tests, [*command, *report.scale.tests], report)
    )
    report.say(f"tests: {row.get('summary')}{_problem(row)}")


def _run_tests(command: Sequence[str], report: Report) -> Row:
    ended, output = _run_process(command, max(5.0, min(120.0, report.left_s / 2)))
    lines = output.strip().splitlines() or [""]
    row: Row = {"summary": lines[-1]}
    if ended not in (0, 5):  # 5: no test was collected
        row |= {"problem": f"exit status {ended}", "output": output[-6000:]}
        report.say(output[-3000:])
    return row


def encoder(report: Report) -> None:
    """Compare GAC's encoder with the form that computes everything at every step."""
    backends = tuple(dict.fromkeys((report.neurons, "eager")))
    run = partial(
        bench_encoder.measure, report.scale.encoder, report.scale.rounds, report.device, backends
    )
    row = report.measure("encoder", "gac", run)
    for name, found in row.items():
        if isinstance(found, dict) and "ratio" in found:
            report.say(f"encoder, {row['case']}, {name}: repeated / reused {found['ratio']:.2f}")
    if "problem" in row:
        report.say(f"encoder: {row['problem']}")


PARTS: dict[str, Callable[[Report], None]] = {
    "tests": tests,
    "steps": steps,
    "peers": peers,
    "profile": profile,
    "speed": speed,
    "default_run": default_run,
    "grid": grid,
    "encoder": encoder,
    "packing": packing,
    "bits": bits,
}


def tables(report: Report) -> None:
    """Print the table of steps and the number of comparisons of bits with the expected result."""
    rows = report.parts.get("steps", [])
    if rows:
        table = Table(title=f"{report.facts['device_name']}, torch {report.facts['torch_version']}")
        table.add_column("network")
        table.add_column("neurons")
        headings = ("train ms", "/ ReLU", "/ conv", "images/s", "MB", "/ ReLU", "eval ms", "/ ReLU")
        for heading in headings:
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(row["network"], row["variant"], *_cells(row))
        report.console.print(table)
    compared = report.parts.get("bits", [])
    if compared:
        right = [row for row in compared if row.get("is_equal") and row.get("is_as_expected", True)]
        report.say(f"BITS: {len(right)} of {len(compared)} comparisons as expected")


def _cells(row: Row) -> list[str]:
    formats = {
        "train_ms": ".2f",
        "train_over_relu": ".2f",
        "train_over_convolutions": ".2f",
        "images_per_s": ",.0f",
        "peak_mb": ",.0f",
        "memory_over_relu": ".2f",
        "evaluate_ms": ".2f",
        "evaluate_over_relu": ".2f",
    }
    if "problem" in row:
        return [row["problem"][:24]] + [""] * (len(formats) - 1)
    return [
        "" if row.get(name) is None else format(row[name], form) for name, form in formats.items()
    ]


def main() -> None:
    """Parse the command line and run the parts."""
    known = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known.add_argument(
        "--minutes",
        type=float,
        default=6.0,
        help="time limit [default: 6]",
    )
    known.add_argument("--out", type=Path, required=True, help="folder of on_gpu.json")
    known.add_argument("--device", default="auto", help="as for codingbench run")
    known.add_argument("--scale", choices=tuple(SCALES), default="full")
    known.add_argument("--data-dir", type=Path, help="folder with CIFAR-100")
    known.add_argument("--neurons", choices=BACKENDS, help="backend [default: that of the device]")
    known.add_argument(
        "--parts",
        default=",".join(PARTS),
        help="comma-separated [default: all]",
    )
    known.add_argument("--quick", action="store_true", help="measure only bits and speed of graphs")
    options = known.parse_args()
    parts = [quick] if options.quick else [PARTS[name] for name in options.parts.split(",")]
    keep_freed_memory()
    device = resolve_device(options.device)
    scale = SCALES[options.scale]
    data_dir = options.data_dir and options.data_dir.resolve()
    report = Report(options.out, 60 * options.minutes, device, scale, options.neurons, data_dir)
    report.say(
        f"{report.facts['device_name']}, torch {report.facts['torch_version']}, "
        f"commit {report.facts['git_commit']}, neurons {report.neurons}"
    )
    for part in parts:
        try:
            part(report)
        except Exception:
            traceback.print_exc()
    tables(report)
    report.write()
    report.say(f"{time.perf_counter() - report.started:.0f} s; written to {report.path}")


if __name__ == "__main__":
    main()
