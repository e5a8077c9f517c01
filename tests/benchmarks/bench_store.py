"""Measure how the store scales: the leaderboard, listing, one cell and a commit.

    python tests/benchmarks/bench_store.py [--short] [--cells 100,1000] [--json store.json]

The stores are in a temporary folder, compacted, and hold synthetic cells for all combinations of
data sets, backbones, T, encoders and seeds. Listing, reading and committing are timed in this
process on a new ``Store``. The leaderboard is timed as a separate process from start to exit, with
its peak memory. ``compact`` is timed on ``gathered`` cells that were committed one by one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from codingbench.schema import COORDINATES, TABLES
from codingbench.store import compaction
from codingbench.store.durable import write_durably
from codingbench.store.folder import RESULT_TABLES, Store
from codingbench.store.parts import encode

CELLS = [100, 1_000, 10_000, 100_000]
SEEDS = 5
ROWS = {"cells": 1, "steps": 4, "layers": 20, "epochs": 4, "predictions": 20}
"""Rows of a cell in each table; real cells have more ``layers`` and ``predictions``."""
LAYERS = ["encoder.code", *(f"backbone.blocks.{block}.neuron" for block in range(4))]

LEADERBOARD = """
import sys
from pathlib import Path
from rich.console import Console
from codingbench.views.leaderboard import present
from codingbench.store.folder import Store
shown = present(Store(Path(sys.argv[1])), form=sys.argv[2])
print(shown, end="") if isinstance(shown, str) else Console().print(shown)
"""


def make_store(folder: Path, cells: int) -> None:
    """Make a store of ``cells`` finished cells, all in compact parts."""
    draws = np.random.default_rng(0)
    keys = np.sort(draws.choice(2**40, cells, replace=False))
    order = draws.permutation(cells)  # keys are hashes, unrelated to the coordinates
    for table, rows in ROWS.items():
        per_part = compaction.PART_ROWS // rows
        (folder / table / "compact").mkdir(parents=True)
        for start in range(0, cells, per_part):
            of_cell = np.repeat(np.arange(start, min(start + per_part, cells)), rows)
            part = _rows(table, [f"{key:016x}" for key in keys[of_cell]], order[of_cell], draws)
            first, last = part["key"][0].as_py(), part["key"][-1].as_py()
            name = f"{first}-{last}-{start:08x}.parquet"
            write_durably(folder / table / "compact" / name, encode(part))


def _rows(table: str, keys: list[str], cell: Any, draws: np.random.Generator) -> pa.Table:
    """Make the rows of the cells with the numbers ``cell``, which determine their coordinates."""
    count, number = len(keys), cell // SEEDS
    named = {
        "key": keys,
        "seed": cell % SEEDS,
        "num_steps": np.array([2, 4, 6, 8])[number % 4],
        "dataset": np.char.add("data", (number // 4 % 10).astype(str)),
        "backbone": np.char.add("net", (number // 40 % 10).astype(str)),
        "encoder": np.char.add("coding", (number // 400).astype(str)),
        "step": np.arange(count) % 4 + 1,
        "epoch": np.arange(count) % 4 + 1,
        "layer": np.array(LAYERS)[np.arange(count) // 4 % len(LAYERS)],
        "kind": np.array(["code", "neuron"])[np.minimum(np.arange(count) // 4 % len(LAYERS), 1)],
        "num_classes": np.full(count, 10),
        "images": np.full(count, 1000),
        "recipe_hash": np.full(count, "0123456789abcdef"),
        "encoder_code": np.full(count, "0123456789abcdef"),
        "backbone_code": np.full(count, "0123456789abcdef"),
        "dataset_fingerprint": np.full(count, "0123456789abcdef"),
    }
    made: dict[pa.DataType, Callable[[], Any]] = {
        pa.string(): lambda: np.full(count, "text"),
        pa.bool_(): lambda: np.zeros(count, bool),
        pa.float64(): lambda: draws.random(count),
        pa.float32(): lambda: draws.random(count, np.float32),
    }
    same = {*COORDINATES} - {*named}
    columns = []
    for field in TABLES[table]:
        whole = np.full(count, 4) if field.name in same else draws.integers(0, 1000, count)
        values = named.get(field.name, made.get(field.type, lambda w=whole: w)())
        columns.append(pa.array(values).cast(field.type))
    return pa.Table.from_arrays(columns, schema=TABLES[table])


def commits_ms(store: Store, count: int, first: int = 2**63) -> list[float]:
    """Return the milliseconds of each of ``count`` commits of new cells."""
    draws, times = np.random.default_rng(1), []
    for number in range(count):
        key = f"{first + number:016x}"
        cell = {
            name: _rows(name, [key] * ROWS[name], np.full(ROWS[name], number), draws)
            for name in (*RESULT_TABLES, "cells")
        }
        times.append(1e3 * timed(partial(store.commit, key, cell)))
    return times


def timed(action: Callable[[], Any]) -> float:
    """Return the seconds that ``action`` takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def leaderboard(folder: Path, form: str) -> dict[str, float]:
    """Return the seconds, CPU seconds and peak memory of a process that prints the leaderboard."""
    started = time.perf_counter()
    command = [sys.executable, "-c", LEADERBOARD, str(folder), form]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the leaderboard of {folder} failed: {' '.join(command)}")
    return {
        "wall_s": time.perf_counter() - started,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 2**10,
    }


def measure(cells: int, gathered: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "results"
        make_store(folder, cells)
        some = sorted(Store(folder).finished())[cells // 2]
        result = {
            "cells": cells,
            "files": sum(path.is_file() for path in folder.rglob("*")),
            "mb": sum(path.stat().st_size for path in folder.rglob("*.parquet")) / 2**20,
            "leaderboard": {form: leaderboard(folder, form) for form in ("table", "json")},
            "finished_s": timed(lambda: Store(folder).finished()),
            "read_cells_s": timed(lambda: Store(folder).read("cells")),
            "read_one_s": {
                table: timed(partial(Store(folder).read, table, [some]))
                for table in ("cells", "layers")
            },
            "first_commit_ms": commits_ms(Store(folder), 1)[0],
            "commit_ms": statistics.median(commits_ms(store := Store(folder), gathered)),
            "finished_with_singles_s": timed(store.finished),
        }
        return result | {"compact_s": timed(lambda: compaction.compact(store))}


def show(results: list[dict[str, Any]], gathered: int) -> Table:
    table = Table(title=f"seconds unless said otherwise; {gathered} cells committed and gathered")
    lines: dict[str, Callable[[dict[str, Any]], str]] = {
        "files": lambda r: f"{r['files']:,}",
        "MB": lambda r: f"{r['mb']:.1f}",
        "leaderboard, table": lambda r: f"{r['leaderboard']['table']['wall_s']:.2f}",
        "  CPU": lambda r: f"{r['leaderboard']['table']['cpu_s']:.2f}",
        "  peak MB": lambda r: f"{r['leaderboard']['table']['peak_mb']:.0f}",
        "leaderboard, json": lambda r: f"{r['leaderboard']['json']['wall_s']:.2f}",
        "  CPU ": lambda r: f"{r['leaderboard']['json']['cpu_s']:.2f}",
        "  peak MB ": lambda r: f"{r['leaderboard']['json']['peak_mb']:.0f}",
        "keys of finished cells": lambda r: f"{r['finished_s']:.3f}",
        "table cells": lambda r: f"{r['read_cells_s']:.2f}",
        "one cell of cells": lambda r: f"{r['read_one_s']['cells']:.3f}",
        "one cell of layers": lambda r: f"{r['read_one_s']['layers']:.3f}",
        "first commit of a process, ms": lambda r: f"{r['first_commit_ms']:.1f}",
        "commit, median ms": lambda r: f"{r['commit_ms']:.1f}",
        "compact": lambda r: f"{r['compact_s']:.2f}",
    }
    table.add_column("cells")
    for result in results:
        table.add_column(f"{result['cells']:,}", justify="right")
    for name, text in lines.items():
        table.add_row(name, *map(text, results))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="100 cells, 5 gathered")
    parser.add_argument("--cells", help="numbers of cells, comma-separated")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    sizes = list(map(int, arguments.cells.split(","))) if arguments.cells else CELLS
    sizes, gathered = ([100], 5) if arguments.short else (sizes, 100)
    results = [measure(cells, gathered) for cells in sizes]
    Console().print(show(results, gathered))
    if arguments.json:
        arguments.json.write_text(json.dumps({"results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
