"""Measure how the report scales with cells: time to write it, size, time to load in Chromium.

    python tests/benchmarks/bench_report.py [--short] [--rounds 5] [--json report.json]

The stores are synthetic (``bench_store.py``): up to 20 rows in each of up to 100 comparisons. The
command writes the page in a separate process. Each round loads it in a new browser context and
takes the time to the load event, when all scripts have run, and to the first figure.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import chromium
from bench_store import make_store
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.table import Table
from timing import parser, write_json

CELLS = [100, 1_000, 10_000]


def measure(cells: int, browser: Browser, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder, page = Path(name) / "results", Path(name) / "report.html"
        make_store(folder, cells)
        options = ["--results", str(folder), "--output", str(page)]
        command = [sys.executable, "-m", "codingbench", "report", *options]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall_s = time.perf_counter() - started
        loads = [load(browser, page) for _ in range(rounds)]
        return {
            "cells": cells,
            "rounds": rounds,
            "write_s": wall_s,
            "mb": page.stat().st_size / 1e6,
            "load_ms": [loaded for loaded, _ in loads],
            "first_figure_ms": [drawn for _, drawn in loads],
        }


def load(browser: Browser, path: Path) -> tuple[float, float]:
    """Return milliseconds to the load event and to the first figure."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    started = time.perf_counter()
    page.goto(path.as_uri())
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    page.locator("#plot-pareto").scroll_into_view_if_needed()
    page.wait_for_selector("#plot-pareto .main-svg")
    drawn = 1e3 * (time.perf_counter() - started)
    context.close()
    return float(loaded), drawn


def show(results: list[dict[str, Any]]) -> Table:
    table = Table(title="medians of the rounds")
    headings = ("cells", "written in s", "MB", "loaded in ms", "first figure in ms")
    for heading in headings:
        table.add_column(heading, justify="right")
    for result in results:
        times = (f"{statistics.median(result[n]):.0f}" for n in ("load_ms", "first_figure_ms"))
        size = (f"{result['write_s']:.1f}", f"{result['mb']:.1f}")
        table.add_row(f"{result['cells']:,}", *size, *times)
    return table


def main() -> None:
    arguments = parser(__doc__, "100 cells, two rounds", rounds=5).parse_args()
    sizes, rounds = ([100], 2) if arguments.short else (CELLS, arguments.rounds)
    found = chromium.find()
    if found is None:
        raise SystemExit("needs Chrome or Chromium: install one, or set BROWSER_PATH to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=chromium.QUIET)
        results = [measure(cells, browser, rounds) for cells in sizes]
        browser.close()
    Console().print(show(results))
    write_json(arguments.json, results)


if __name__ == "__main__":
    main()
