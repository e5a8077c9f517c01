"""What this project does on a GPU, measured part by part in one command.

    python tests/benchmarks/on_gpu.py --minutes 6 --out DIR [--data-dir DIR]
    python tests/benchmarks/on_gpu.py --quick --out DIR
    python tests/benchmarks/on_gpu.py --device cpu --scale tiny --out DIR

Every part is independent: an error in one is printed with its traceback, and the next one runs.
After each part ``DIR/on_gpu.json`` holds everything measured so far, so that a time limit loses
nothing. ``--quick`` only compares trainings from CUDA graphs with eager ones, bit by bit, and
times both.
"""

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS may not repeat itself

import argparse
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import graph_checks
import torch
from graph_checks import Case
from rich.console import Console

from codingbench.runtime.devices import keep_freed_memory, resolve_device
from codingbench.runtime.provenance import provenance

Row = dict[str, Any]


class Report:
    """What has been measured so far, on the terminal and in a file.

    Args:
        folder: gets ``on_gpu.json``.
        limit_s: seconds after which no further measurement starts.
        device: what is measured.
    """

    def __init__(self, folder: Path, limit_s: float, device: torch.device) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.device = folder / "on_gpu.json", device
        self.started, self.limit_s = time.perf_counter(), limit_s
        self.facts = provenance(device, names_host=False)
        self.parts: dict[str, list[Row]] = {}
        self.console = Console(width=120, highlight=False)

    @property
    def left_s(self) -> float:
        """Seconds until the limit."""
        return self.limit_s - (time.perf_counter() - self.started)

    def measure(self, part: str, name: str, run: Callable[[], Row]) -> Row:
        """Run one measurement unless the time is up; keep, write and print its row."""
        row: Row = {"name": name}
        if self.left_s <= 0:
            row["skipped"] = "the time was up"
        else:
            started = time.perf_counter()
            try:
                row |= run()
            except Exception as error:
                traceback.print_exc()
                row["error"] = f"{type(error).__name__}: {error}"
            row["took_s"] = time.perf_counter() - started
        self.parts.setdefault(part, []).append(row)
        self.write()
        return row

    def write(self) -> None:
        """Replace the file by one that holds everything so far."""
        content = {"facts": self.facts, "parts": self.parts}
        content["seconds"] = time.perf_counter() - self.started  # type: ignore[assignment]
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(content, indent=2, default=str) + "\n")
        part.replace(self.path)

    def say(self, line: str) -> None:
        """Print a line at once."""
        self.console.print(line, markup=False, soft_wrap=True)


def quick(report: Report, is_tiny: bool) -> None:
    """Bit-equality of trainings with and without graphs, then the speed of csnn at batch 50."""
    names = list(graph_checks.checks(report.device))
    for name, check in names[:3] if is_tiny else names[:12]:
        _compare(report, name, check)
    speed(report, is_tiny)
    for name, check in [] if is_tiny else names[12:]:
        _compare(report, name, check)
    rows = report.parts["bits"]
    equal = [row for row in rows if row.get("is_equal") and row.get("is_as_expected", True)]
    report.say(f"\nBITS: {len(equal)} of {len(rows)} comparisons as expected")


def _compare(report: Report, name: str, check: Callable[[], Row]) -> None:
    row = report.measure("bits", name, check)
    if "is_equal" not in row:
        report.say(f"{name}: {row.get('error') or row.get('skipped')}")
        return
    verdict = "equal" if row["is_equal"] else f"DIFFERENT: {row['difference']}"
    if not row["is_equal"] and not row.get("eager_repeats_itself", True):
        verdict += " (eager does not repeat itself, either)"
    if not row.get("is_as_expected", True):
        verdict += " UNEXPECTED: captured or refused wrongly"
    details = ""
    if "graphs" in row:
        details = (
            f", {row['graphs']} graphs in {row['capture_s']:.2f} s"
            f", eager {row['eager_s']:.1f} s, replayed {row['replayed_s']:.1f} s"
        )
        if row["refusals"]:
            details += f", eager because {'; '.join(row['refusals'])}"
    report.say(f"{row['case']}: {verdict}{details}")


def speed(report: Report, is_tiny: bool) -> None:
    """Images per second of csnn in a training of the default recipe, eager and from graphs."""
    images = 300 if is_tiny else 6_000
    direct = Case("direct", batch=50, epochs=2, precision="fp32" if is_tiny else "bf16")
    cases = [direct, replace(direct, precision="fp32"), replace(direct, encoder="rate")]
    for case in cases[:1] if is_tiny else cases:
        for graphs in (False, True):
            how = "graphs" if graphs else "eager"
            row = report.measure(
                "speed",
                f"{case}, {how}",
                lambda case=case, graphs=graphs: graph_checks.throughput(  # type: ignore[misc]
                    case, images, graphs, report.device
                ),
            )
            if "images_per_s" in row:
                report.say(
                    f"{row['name']}: {row['images_per_s']:,.0f} images/s, epochs of "
                    f"{row['first_epoch_s']:.2f} s and {row['last_epoch_s']:.2f} s, "
                    f"{row['graphs']} graphs in {row['capture_s']:.2f} s"
                )
            else:
                report.say(f"{row['name']}: {row.get('error') or row.get('skipped')}")


def main() -> None:
    """Parse the command line and run the parts."""
    known = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known.add_argument("--minutes", type=float, default=6.0, help="start nothing after so long")
    known.add_argument("--out", type=Path, required=True, help="folder for on_gpu.json")
    known.add_argument("--device", default="auto", help="as for codingbench run")
    known.add_argument("--scale", choices=("full", "small", "tiny"), default="full")
    known.add_argument("--quick", action="store_true", help="only bits and speed of graphs")
    options = known.parse_args()
    keep_freed_memory()
    report = Report(options.out, 60 * options.minutes, resolve_device(options.device))
    report.say(f"{report.facts['device_name']}, torch {report.facts['torch_version']}")
    quick(report, options.scale == "tiny")
    report.say(f"{time.perf_counter() - report.started:.0f} s; written to {report.path}")


if __name__ == "__main__":
    main()
