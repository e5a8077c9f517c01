"""Shared code of the benchmarks: alternating rounds, ratios within a round, command line."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Times = dict[str, list[float]]
"""The seconds of each variant, one number per round."""


def alternate(ways: Mapping[str, Callable[[], object]], rounds: int) -> Times:
    """Run every variant once as warm-up, then all variants in turn in each round."""
    for way in ways.values():
        way()
    wall_s: Times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            wall_s[name].append(time.perf_counter() - start)
    return wall_s


def ratios(times: list[float], to: list[float]) -> dict[str, Any]:
    """Return median, smallest and largest of the ratios within the same round."""
    found = [t / base for t, base in zip(times, to, strict=True)]
    return {"ratio": statistics.median(found), "spread": [min(found), max(found)]}


def median_ms(times: list[float]) -> float:
    """Return the median of times in seconds, in milliseconds."""
    return 1e3 * statistics.median(times)


def shown(found: Mapping[str, Any]) -> str:
    """Format a ratio for a table: median (smallest-largest)."""
    low, high = found["spread"]
    return f"{found['ratio']:.2f} ({low:.2f}-{high:.2f})"


def parser(doc: str | None, short: str, rounds: int = 7) -> argparse.ArgumentParser:
    """Return a parser with the common options; ``short`` is the help of ``--short``."""
    options = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else None)
    options.add_argument("--short", action="store_true", help=short)
    options.add_argument("--rounds", type=int, default=rounds)
    options.add_argument("--json", type=Path, help="write every time and ratio here")
    return options


def write_json(path: Path | None, results: list[dict[str, Any]]) -> None:
    """Write the results with torch version and threads, unless the path is None."""
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads(), "results": results}
    if path:
        path.write_text(json.dumps(facts, indent=2) + "\n")
