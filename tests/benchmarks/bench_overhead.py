"""Overhead of a cell, and the share of measuring and writing in a whole `gac` run.

    python tests/benchmarks/bench_overhead.py [--short] [--json overhead.json]

A cell is built, trained for one epoch on random images of CIFAR-100's shape, evaluated under the
operation counter, put into tables and committed to a store in a temporary folder, each part by the
call that a run makes, and each part is timed.

    fixed overhead = build + train + counted test + tables + commit, all as first done,
                     minus a plain pass over the same images: the same training and test again,
                     warm and uncounted

The share is computed from the speeds measured here for recipe ``gac`` on the whole of CIFAR-100:

    training  = epochs x training images / trained images per s
    selecting = epochs x validation images / evaluated images per s
    measuring = test images / counted images per s + test images / evaluated images per s
    writing   = tables + commit, with a row for each test image
    share     = (measuring + writing) / (training + selecting + measuring + writing)

where measuring is the counted test and the test of the selected epoch's weights. Every round makes
a new cell. The first one of its shape, which loads its kernels, is shown beside the median.
Checkpoints are not included; they have a limit of their own.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timing import parser, write_json

from codingbench.backbone import Network, build_network
from codingbench.cells import rows as tables
from codingbench.cells.grid import Grid, Job
from codingbench.cells.network import task_of
from codingbench.counting.counter import OperationCounter
from codingbench.datasets.images import Split
from codingbench.recipes.recipe import load_recipe
from codingbench.runtime.devices import keep_freed_memory
from codingbench.schema import TABLES
from codingbench.store.folder import Store
from codingbench.training.evaluation import Evaluation, evaluate, stream
from codingbench.training.loop import Training, train
from codingbench.training.splits import Data, hold_out

# backbone, T, training images (one of them held out), test images; few images, because the
# variation of their time adds to the overhead
CASES = [("csnn", 4, 65, 100), ("csnn", 6, 65, 100), ("ms_resnet18", 4, 9, 4)]
SHORT = [("csnn", 2, 8, 4)]
PARTS = ("build", "train", "counted test", "tables", "commit")
AGAIN = ("train again", "plain test")


class Silent:
    """A listener that ignores everything."""

    def pulse(self, pulse: Any) -> None:
        """Ignore the event."""

    def epoch_done(self, row: dict[str, Any]) -> None:
        """Ignore the event."""


class Stopwatch:
    """Measures seconds by part."""

    def __init__(self) -> None:
        self.wall_s: dict[str, float] = {}
        self._started = time.perf_counter()

    def lap(self, part: str) -> None:
        """Add the time since the last lap to ``part``."""
        now = time.perf_counter()
        self.wall_s[part], self._started = now - self._started, now


def make_job(backbone: str, num_steps: int, train_images: int, test_images: int) -> Job:
    """Return a job: one epoch of recipe ``gac`` on CIFAR-100."""
    grid = Grid(
        encoders=("gac",),
        backbones=(backbone,),
        datasets=("cifar100",),
        num_steps=(num_steps,),
        recipes=("gac",),
        epochs=1,
        train_samples=train_images,
        test_samples=test_images,
    )
    (job,) = grid.expand()
    return job


def make_data(job: Job) -> Data:
    """Return as many random images as the job has."""
    draws = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        images = torch.randint(256, (count, *job.info.shape), generator=draws, dtype=torch.uint8)
        return Split(images, torch.randint(job.info.num_classes, (count,), generator=draws))

    kept, val = hold_out(split(job.cell.train_samples), job.recipe.val_fraction)
    return Data(kept, val, split(job.cell.test_samples))


def run_cell(job: Job, data: Data, store: Store) -> tuple[dict[str, float], float]:
    """Return the seconds of each part, second passes included, and images trained per second."""
    watch, cell = Stopwatch(), job.cell
    task = task_of(job.info, cell.num_steps)
    network = build_network(job.encoder, job.backbone, task, cell.seed)
    watch.lap("build")
    training = train_once(network, data, job)
    watch.lap("train")
    with OperationCounter(network, cell.num_steps) as counter:
        evaluation = test_once(network, data, job)
    watch.lap("counted test")
    made = make_tables(job, network, training, evaluation, counter)
    watch.lap("tables")
    store.commit(key_of(job), made)
    watch.lap("commit")
    again = train_once(network, data, job)
    watch.lap("train again")
    test_once(network, data, job)
    watch.lap("plain test")
    return watch.wall_s, again.images_per_s


def train_once(network: Network, data: Data, job: Job) -> Training:
    """Train for one epoch, with validation."""
    return train(network, data, job.recipe, job.cell.seed, job.cell.precision, Silent())


def test_once(network: Network, data: Data, job: Job) -> Evaluation:
    """Evaluate all test images."""
    return evaluate(network, data.test, stream(job.cell.seed, "test"), job.cell.precision)


def key_of(job: Job) -> str:
    """Return a key; the random data has no files to hash."""
    return job.key("0" * 16)


def make_tables(
    job: Job,
    network: Network,
    training: Training,
    evaluation: Evaluation,
    counter: OperationCounter,
) -> dict[str, Any]:
    """Return the rows of a cell; provenance, found once per process, stays empty."""
    rows, names = counter.layer_rows(), tables.coordinates(job, key_of(job))
    found = tables.cell_row(job, network, training, evaluation, evaluation, rows, {})
    return {
        "cells": [dict.fromkeys(TABLES["cells"].names) | names | found],
        "steps": [names | row for row in tables.step_rows(rows, evaluation.accuracy)],
        "layers": [names | row for row in rows],
        "epochs": [names | row for row in training.epoch_rows],
        "predictions": tables.prediction_table(key_of(job), evaluation),
    }


def fixed_s(wall_s: dict[str, float]) -> float:
    """Return the overhead of one cell, by the formula above."""
    return sum(wall_s[part] for part in PARTS) - sum(wall_s[part] for part in AGAIN)


def writing_s(job: Job, data: Data, store: Store, images: int) -> float:
    """Return the seconds of tables and commit for a cell with ``images`` test images."""
    network = build_network(job.encoder, job.backbone, task_of(job.info, job.cell.num_steps), 0)
    training = train_once(network, data, job)
    with OperationCounter(network, job.cell.num_steps) as counter:
        found = test_once(network, data, job)
    copies = -(-images // len(found.labels))
    many = replace(
        found,
        labels=found.labels.repeat(copies)[:images],
        predictions=found.predictions.repeat(copies)[:images],
        margins=found.margins.repeat(copies)[:images],
    )
    start = time.perf_counter()
    store.commit(key_of(job), make_tables(job, network, training, many, counter))
    return time.perf_counter() - start


def whole_run_s(job: Job, speed: dict[str, float], writing: float) -> dict[str, float]:
    """Compute the seconds of each part for the whole recipe on the whole data set."""
    epochs = load_recipe(job.recipe.name).epochs
    val = round(job.recipe.val_fraction * job.info.train_size)
    return {
        "training": epochs * (job.info.train_size - val) / speed["trained"],
        "selecting": epochs * val / speed["evaluated"],
        "measuring": job.info.test_size * (1 / speed["counted"] + 1 / speed["evaluated"]),
        "writing": writing,
    }


def measure(case: tuple[str, int, int, int], rounds: int) -> dict[str, Any]:
    """Return the times of one case per round, the overhead, and its share of a whole run."""
    job = make_job(*case)
    data = make_data(job)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        runs = [run_cell(job, data, store) for _ in range(1 + rounds)]
        writing = writing_s(job, data, store, job.info.test_size)
    cells = [wall_s for wall_s, _ in runs]
    first, *others = cells
    median = {part: statistics.median(cell[part] for cell in others) for part in first}
    tested, trained = len(data.test.labels), len(data.train.labels)
    speed = {
        "trained": statistics.median(trained_per_s for _, trained_per_s in runs[1:]),
        "evaluated": tested / median["plain test"],
        "counted": tested / median["counted test"],
    }
    whole = whole_run_s(job, speed, writing)
    backbone, num_steps, *_ = case
    return {
        "case": f"{backbone}, T={num_steps}",
        "images": {"trained": trained, "validated": len(data.val.labels), "tested": tested},
        "cells_wall_s": cells,
        "median_wall_s": median,
        "fixed_s": statistics.median(map(fixed_s, others)),
        "fixed_spread_s": [min(map(fixed_s, others)), max(map(fixed_s, others))],
        "first_fixed_s": fixed_s(first),
        "images_per_s": speed,
        "whole_run_s": whole,
        "share": (whole["measuring"] + whole["writing"]) / sum(whole.values()),
    }


def show(results: list[dict[str, Any]]) -> list[Table]:
    """Return a table of the parts of a cell, and of the whole run computed from them."""
    parts = Table(title="a cell: seconds of each part (median), fixed overhead of all")
    speeds = Table(title="recipe gac on CIFAR-100, computed: hours, and the share of the last two")
    for table in (parts, speeds):
        table.add_column("case")
    for heading in (*PARTS, *AGAIN, "fixed s", "first cell's"):
        parts.add_column(heading, justify="right")
    for heading in ("trained/s", "evaluated/s", "counted/s", *results[0]["whole_run_s"], "share"):
        speeds.add_column(heading, justify="right")
    for result in results:
        wall_s, (low, high) = result["median_wall_s"], result["fixed_spread_s"]
        fixed = f"{result['fixed_s']:.2f} ({low:.2f}-{high:.2f})"
        times = [f"{wall_s[part]:.3f}" for part in (*PARTS, *AGAIN)]
        parts.add_row(result["case"], *times, fixed, f"{result['first_fixed_s']:.2f}")
        found = [f"{speed:.0f}" for speed in result["images_per_s"].values()]
        hours = [f"{seconds / 3600:.4f}" for seconds in result["whole_run_s"].values()]
        speeds.add_row(result["case"], *found, *hours, f"{100 * result['share']:.2f} %")
    return [parts, speeds]


def main() -> None:
    """Run the cases, print the tables, write the JSON."""
    options = parser(__doc__, "one small case, two rounds").parse_args()
    keep_freed_memory()
    cases, rounds = (SHORT, 2) if options.short else (CASES, options.rounds)
    results = [measure(case, rounds) for case in cases]
    console = Console(width=130)
    for table in show(results):
        console.print(table)
    write_json(options.json, results)


if __name__ == "__main__":
    main()
