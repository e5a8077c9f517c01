"""The estimate of a grid's time, and the plan that shows it."""

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from codingbench.backbone import Network
from codingbench.cells import estimate
from codingbench.cells.estimate import estimate_seconds
from codingbench.cells.grid import Grid, Job
from codingbench.cells.network import network_of
from codingbench.cells.settings import parse_settings
from codingbench.errors import SpecError
from codingbench.literature.reproduction import load_protocol
from codingbench.runtime.formatting import duration
from codingbench.views.plan import render_plan
from tests.test_cli_run import call

CPU = torch.device("cpu")


@pytest.fixture
def ten_ms_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one image take 10 ms for each of its T steps, with any plug-in."""
    monkeypatch.setattr(estimate, "_seconds_per_image", lambda job, _: 0.01 * job.cell.num_steps)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (42.4, "42 s"),
        (99.0, "99 s"),
        (100, "2 min"),
        (600, "10 min"),
        (5939, "99 min"),
        (6000, "1 h 40 min"),
        (36_300, "10 h 5 min"),
    ],
)
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.usefixtures("ten_ms_a_step")
def test_a_cell_costs_its_trained_validated_and_tested_images() -> None:
    grid = Grid(
        encoders=("direct",), num_steps=(2,), epochs=3, train_samples=1000, test_samples=500
    )
    (seconds,) = estimate_seconds(grid.expand(), CPU).values()
    # A tenth of the images is held out. Evaluating an image takes 0.4 of training it.
    assert seconds == pytest.approx(0.02 * (3 * (900 + 0.4 * 100) + 0.4 * 500))


@pytest.mark.usefixtures("ten_ms_a_step")
def test_more_kinds_of_cells_than_are_timed_are_taken_by_their_steps() -> None:
    grid = Grid(encoders=("direct",), num_steps=tuple(range(1, 21)), epochs=1)
    seconds = estimate_seconds(grid.expand(), CPU)
    first, *_, last = seconds.values()
    assert len(seconds) == 20
    assert last == pytest.approx(20 * first)


def test_a_real_training_step_is_timed_once_for_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[Job] = []
    really = estimate._seconds_per_image

    def spy(job: Job, device: torch.device) -> float:
        timed.append(job)
        return really(job, device)

    monkeypatch.setattr(estimate, "_seconds_per_image", spy)
    jobs = Grid(encoders=("direct", "rate"), seeds=(0, 1), num_steps=(2,)).expand()
    seconds = estimate_seconds(jobs, CPU)
    assert [job.cell.encoder for job in timed] == ["direct", "rate"]
    assert list(seconds) == [job.cell for job in jobs]
    assert all(value > 0 for value in seconds.values())


def test_after_20_seconds_no_further_kind_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, timed = [0.0], []

    def slow(job: Job, device: torch.device) -> float:
        timed.append(job)
        clock[0] += 15
        return 0.01

    monkeypatch.setattr(estimate, "_seconds_per_image", slow)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    jobs = Grid(encoders=("direct", "rate", "latency"), num_steps=(2,)).expand()
    assert len(estimate_seconds(jobs, CPU)) == 3
    assert [job.cell.encoder for job in timed] == ["direct", "rate"]


def test_a_plugin_that_fails_is_named_with_its_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(
        "from codingbench.encoder import FeatureEncoder\n"
        "class Broken(FeatureEncoder):\n"
        "    emits = 'real'\n"
        "    def encode(self, features):\n"
        "        raise RuntimeError('two\\nlines')\n"
    )
    with pytest.raises(SpecError, match=r"^Broken · csnn · T=4 · seed 0: RuntimeError: two lines$"):
        estimate_seconds(Grid(encoders=(f"{path}:Broken",)).expand(), CPU)


def text_of(jobs: Sequence[Job], most: int = 200, width: int = 120, workers: int = 1) -> str:
    console = Console(file=io.StringIO(), width=width)
    seconds = {job.cell: 90.0 for job in jobs}
    console.print(render_plan(jobs, seconds, CPU, most, workers=workers))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_plan_lists_every_cell_and_the_sum() -> None:
    jobs = Grid(encoders=("direct[spiking=false]", "gac"), num_steps=(2, 4)).expand()
    shown = text_of(jobs)
    assert "direct[spiking=false]" in shown
    rows = [row for row in shown.splitlines() if "90 s" in row]
    assert len(rows) == 4
    assert rows[0].split() == ["direct[spiking=false]", "2", "0", "90", "s"]
    shared = "fashion_mini, backbone csnn, recipe quick, 4 epochs, 6,000 training images"
    assert shown.splitlines()[0] == shared
    assert "4 cells, about 6 min on cpu" in shown


def test_the_plan_has_a_column_for_what_differs() -> None:
    jobs = Grid(encoders=("rate",), backbones=("csnn", "vgg9")).expand()
    shown = text_of(jobs)
    assert shown.splitlines()[0] == "fashion_mini, recipe quick, 4 epochs, 6,000 training images"
    assert [row.split()[:2] for row in shown.splitlines() if "90 s" in row] == [
        ["rate", "csnn"],
        ["rate", "vgg9"],
    ]


def test_a_plan_of_80_columns_has_whole_names() -> None:
    protocol = load_protocol("gac")
    jobs = parse_settings({**protocol.settings}).grid.expand()
    shown = text_of(jobs, width=80)
    assert "direct[spiking=false]" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.usefixtures("ten_ms_a_step")
def test_each_kind_is_told_before_it_is_timed() -> None:
    told: list[tuple[int, int, str]] = []
    jobs = Grid(encoders=("direct", "rate"), seeds=(0, 1)).expand()
    estimate_seconds(jobs, CPU, lambda *timing: told.append((*timing[:2], timing[2].encoder)))
    assert told == [(1, 2, "direct"), (2, 2, "rate")]


def test_a_plan_of_many_cells_is_cut_but_its_sum_is_not() -> None:
    jobs = Grid(encoders=("direct",), seeds=tuple(range(10))).expand()
    shown = text_of(jobs, most=3)
    assert sum("90 s" in row for row in shown.splitlines()) == 3
    assert "10 cells (7 not shown), about 15 min on cpu" in shown


@pytest.mark.parametrize(
    ("workers", "ending"),
    [
        (1, "about 15 min on cpu"),
        (2, "about 8 min on cpu, 2 at a time"),
        (4, "about 4 min on cpu, 4 at a time"),  # three rounds, the last with two cells
        (64, "about 90 s on cpu, 10 at a time"),
    ],
)
def test_the_time_of_a_plan_is_that_of_its_workers(workers: int, ending: str) -> None:
    jobs = Grid(encoders=("direct",), seeds=tuple(range(10))).expand()
    assert text_of(jobs, workers=workers).splitlines()[-1] == f"10 cells, {ending}"


def test_the_time_of_a_plan_ends_with_its_longest_worker() -> None:
    jobs = Grid(encoders=("direct",), seeds=(0, 1, 2)).expand()
    seconds = dict(zip([job.cell for job in jobs], [600.0, 60.0, 120.0], strict=True))
    plan = render_plan(jobs, seconds, CPU, workers=2)
    console = Console(file=io.StringIO(), width=80)
    console.print(plan)
    assert isinstance(console.file, io.StringIO)
    assert "3 cells, about 10 min on cpu, 2 at a time" in console.file.getvalue()


@pytest.mark.parametrize(
    ("flags", "ending"),
    [
        (["--workers", "2", "--threads", "1"], "on cpu, 2 at a time"),
        (["--workers", "1", "--threads", "3"], "on cpu"),
        (["--executor", "slurm", "--workers", "2", "--threads", "3"], "on cpu"),
    ],
)
def test_a_dry_run_times_steps_with_the_threads_of_a_cell(
    flags: list[str], ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def timed(job: Job, device: torch.device) -> float:
        found.append(torch.get_num_threads())
        return 0.01

    monkeypatch.setattr(estimate, "_seconds_per_image", timed)
    before = torch.get_num_threads()
    shown = call("run", "--dry-run", "--encoders", "direct", "--seeds", "2", *flags,
                 "--results", str(tmp_path))  # fmt: skip
    assert shown.status == 0, shown.stderr
    assert found == [int(flags[-1])]
    assert torch.get_num_threads() == before
    assert shown.stdout.splitlines()[-2].endswith(ending)


@pytest.mark.parametrize(
    ("compiles", "steps_s", "expected_s"),
    [
        (False, [1.0, 0.5, 0.25], 0.25),
        (False, [6.0, 6.0, 6.0], 6.0),  # a slow network: its first step must do
        (True, [60.0, 0.01, 0.02], 0.01),  # kernels are compiled in the first step
        (True, [60.0, 9.0, 9.0], 9.0),
    ],
)
def test_the_time_of_a_step_does_not_contain_the_compilation_of_its_kernels(
    compiles: bool, steps_s: list[float], expected_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, steps = [0.0], iter(steps_s)
    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def step() -> None:
        now[0] += next(steps)

    assert estimate._fastest_s(step, compiles=compiles) == pytest.approx(expected_s)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_is_timed_in_the_precision_of_its_cells(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()

    def watched(job: Job, seed: int) -> Network:
        network = network_of(job, seed)
        network.backbone.register_forward_hook(
            lambda *args: found.add(torch.is_autocast_enabled("cpu"))
        )
        return network

    monkeypatch.setattr(estimate, "network_of", watched)
    grid = Grid(encoders=("direct",), num_steps=(1,), epochs=1, precision=precision)
    estimate_seconds(grid.expand(), CPU)
    assert found == {precision == "bf16"}
