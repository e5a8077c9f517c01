"""A whole grid: `codingbench run` compared with a straightforward snntorch script.

    python tests/benchmarks/bench_grid.py --data-dir DIR [--rounds 3] [--short] [--json grid.json]

Four codings x T = 2, 4, 6, one epoch of 10,000 CIFAR-100 images under recipe ``quick``, 1,000 test
images. Both sides run in turn, in processes of their own. Their wall time includes the start,
reading the data, training, validation and test; ours also counts operations and writes the tables.
``snntorch_script.py`` is the other side. Both get GOMP_SPINCOUNT=3000 unless it is set. Ours sets
it by itself; without it, the loader processes and OpenMP threads of the other side slow each other
down. The accuracies of both are printed, because times are comparable only if accuracies are.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from timing import parser, ratios, shown, write_json

import codingbench
from codingbench.datasets import locate
from codingbench.store.folder import Store

FULL = {
    "--encoders": "direct,rate,latency,gac",
    "--T": "2,4,6",
    "--train-samples": "10000",
    "--test-samples": "1000",
    "--epochs": "1",
}
SHORT = FULL | {
    "--encoders": "gac",
    "--T": "2",
    "--train-samples": "200",
    "--test-samples": "50",
}
EMBEDDED = "fashion_mini"
SCRIPT = Path(__file__).parent / "snntorch_script.py"
Cells = dict[str, float]
"""Test accuracy by coding and T."""


def run_ours(bounds: list[str], dataset: str, data_dir: Path | None, folder: Path) -> Cells:
    """Run ours into a new store in ``folder``."""
    data = ["--data-dir", str(data_dir)] if data_dir else []
    results = folder / "results"
    command = [sys.executable, "-m", "codingbench", "run", "--dataset", dataset, *data, *bounds]
    run([*command, "--results", str(results)])
    cells = Store(results).read("cells").to_dict("records")
    return {f"{cell['encoder']}, T={cell['num_steps']}": cell["accuracy"] for cell in cells}


def run_theirs(bounds: list[str], dataset: str, data_dir: Path | None, folder: Path) -> Cells:
    """Run the script on the same files."""
    report = folder / "theirs.json"
    data = locate(dataset, data_dir).folder
    run([sys.executable, str(SCRIPT), str(data), *bounds, "--json", str(report)])
    cells = json.loads(report.read_text())
    return {f"{cell['encoder']}, T={cell['num_steps']}": cell["accuracy"] for cell in cells}


def run(command: list[str]) -> None:
    """Run a command quietly; show its messages if it fails."""
    environment = {"GOMP_SPINCOUNT": "3000"} | os.environ
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")


SIDES = {"codingbench": run_ours, "snntorch script": run_theirs}


def measure(bounds: list[str], dataset: str, data_dir: Path | None, rounds: int) -> dict[str, Any]:
    """Measure each side's wall time per round; the ratio is script / codingbench."""
    wall_s: dict[str, list[float]] = {side: [] for side in SIDES}
    accuracy: dict[str, Cells] = {}
    for _ in range(rounds):
        for side, way in SIDES.items():
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                accuracy[side] = way(bounds, dataset, data_dir, Path(folder))
                wall_s[side].append(time.perf_counter() - start)
    faster = ratios(wall_s["snntorch script"], wall_s["codingbench"])
    return {"dataset": dataset, "wall_s": wall_s, "accuracy": accuracy, **faster}


def show(result: dict[str, Any]) -> Table:
    """Return a table of both accuracies per cell, with the wall times of all rounds below."""
    title = f"{result['dataset']}: script / codingbench {shown(result)}"
    table = Table(title=title, show_footer=True)
    table.add_column("cell", footer="wall s, each round")
    for side in SIDES:
        times = " ".join(f"{wall:.1f}" for wall in result["wall_s"][side])
        table.add_column(f"{side}: accuracy %", footer=times, justify="right")
    for cell in result["accuracy"]["codingbench"]:
        found = (f"{100 * result['accuracy'][side][cell]:.2f}" for side in SIDES)
        table.add_row(cell, *found)
    return table


def main() -> None:
    """Run both sides in turn, print the table, write the JSON."""
    options = parser(__doc__, "one small cell on the embedded images, one round", rounds=3)
    options.add_argument("--data-dir", type=Path, help="where cifar100 is")
    for flag, default in FULL.items():
        options.add_argument(flag, help=f"[default: {default}]")
    chosen = options.parse_args()
    bounds = SHORT if chosen.short else FULL
    asked = {flag: getattr(chosen, flag[2:].replace("-", "_")) for flag in bounds}
    pairs = {flag: asked[flag] or value for flag, value in bounds.items()}
    dataset, data_dir = (EMBEDDED, None) if chosen.short else ("cifar100", chosen.data_dir)
    rounds = 1 if chosen.short else chosen.rounds
    words = [word for pair in pairs.items() for word in pair]
    result = measure(words, dataset, data_dir, rounds)
    Console(width=110).print(show(result))
    print(f"codingbench {codingbench.__version__}: {' '.join(words)}")
    write_json(chosen.json, [result])


if __name__ == "__main__":
    main()
