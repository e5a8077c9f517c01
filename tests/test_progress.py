"""The progress of a running grid, on a terminal and elsewhere."""

import io
from typing import Any

import pytest
from rich.console import Console

from codingbench.cells.grid import Grid, Job
from codingbench.training.meter import Pulse
from codingbench.views.progress import GridProgress

EPOCH = {"epoch": 1, "train_loss": 2.3456, "val_accuracy": 0.125, "images_per_s": 1234.5}
CELL = {"accuracy": 0.5432, "num_classes": 10, "wall_s": 12.3}


@pytest.fixture
def jobs() -> list[Job]:
    return Grid(encoders=("direct[spiking=false]", "rate")).expand()


def lines(jobs: list[Job]) -> list[str]:
    out = io.StringIO()
    with GridProgress(Console(file=out, width=40, highlight=False), len(jobs)) as progress:
        cell = progress.cell_started(jobs[0])
        cell.pulse(Pulse(1, 4, 0.1, 999.0, 2.0, 0.1))
        cell.epoch_done(EPOCH)
        cell.measuring(10, 20)
        progress.cell_done(jobs[0], CELL)
        progress.cell_started(jobs[1])
        progress.cell_failed(jobs[1], "key", "ValueError: [red]expected[/] (2, 3)")
    assert progress.done == 1
    return out.getvalue().splitlines()


def test_without_a_terminal_there_is_a_line_per_event_and_none_is_wrapped(jobs: list[Job]) -> None:
    assert lines(jobs) == [
        "[1/2] direct[spiking=false] · csnn · T=4 · seed 0 · fashion_mini",
        "[1/2]   epoch 1: loss 2.346, validation accuracy 12.5%, 1,234 images/s",
        "[1/2] done   direct[spiking=false] · csnn · T=4 · seed 0 · fashion_mini: "
        "accuracy 54.3% (chance 10%) in 12 s",
        "[2/2] rate · csnn · T=4 · seed 0 · fashion_mini",
        "[2/2] failed rate · csnn · T=4 · seed 0 · fashion_mini: "
        "ValueError: [red]expected[/] (2, 3)",
    ]


def screen(jobs: list[Job], *events: tuple[str, Any], width: int = 160) -> str:
    """Return what the live display shows after the events, as plain text."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)
    with GridProgress(console, len(jobs)) as progress:
        cell = progress.cell_started(jobs[0])
        for name, argument in events:
            getattr(cell, name)(*argument)
        out.truncate(0)
        progress._live.refresh()
        return out.getvalue()


def test_a_terminal_shows_epoch_speed_loss_accuracy_and_time_left(jobs: list[Job]) -> None:
    pulse = Pulse(2, 4, 0.5, 1234.5, 0.987654, 0.6543)
    shown = screen(jobs, ("pulse", (pulse,)))
    assert "epoch 2/4 · 1,234 images/s · loss 0.988 · accuracy 65.4%" in shown
    grid, cell = (next(row for row in shown.splitlines() if name in row) for name in GRID_AND_CELL)
    assert "0/2 cells" in grid
    assert "· left" in grid and "· left" in cell
    assert "done" not in shown


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_cuts_nothing(jobs: list[Job], width: int) -> None:
    shown = screen(jobs, ("pulse", (Pulse(12, 200, 0.5, 1e5, 0.9, 0.6),)), width=width)
    assert "…" not in shown and shown.count("-:--:--") == 2
    assert "epoch 12/200 · 100,000 images/s" in shown and "loss 0.900 · accuracy 60.0%" in shown
    (cell,) = (row for row in shown.splitlines() if "epoch 12" in row)
    assert cell.rstrip().endswith("· left -:--:--")


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_never_breaks_inside_a_word(width: int) -> None:
    encoder = "latency[scale=exponential,weighted=true]"
    jobs = Grid(encoders=(encoder,)).expand()
    shown = screen(jobs, width=width)
    assert all(f"     {part}" in shown or f" {part}" in shown for part in ("csnn", "seed 0"))
    rows = [row.strip() for row in shown.splitlines()]
    whole = encoder if width > 40 else "latency[scale=exponential,"
    assert any(row.startswith(whole) for row in rows)
    assert "fashion_mini" in shown
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)
    with GridProgress(console, 1) as progress:
        progress.cell_started(jobs[0])
        progress.cell_done(jobs[0], CELL)
    for word in ("fashion_mini:", "accuracy", "54.3%", "(chance", "10%)"):
        assert word in out.getvalue()


GRID_AND_CELL = ("grid", "cell ")


def test_a_terminal_names_the_cell_with_its_parameters_before_the_first_pulse(
    jobs: list[Job],
) -> None:
    assert "direct[spiking=false] · csnn · T=4 · seed 0" in screen(jobs)


def test_a_terminal_counts_the_test_images_and_keeps_a_line_per_cell(jobs: list[Job]) -> None:
    assert "measuring 10/20 test images" in screen(jobs, ("measuring", (10, 20)))
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, color_system=None)
    with GridProgress(console, len(jobs)) as progress:
        progress.cell_started(jobs[0])
        progress.cell_done(jobs[0], CELL)
    assert "[1/2] done   direct[spiking=false] · csnn" in out.getvalue()


def test_the_bar_of_the_grid_moves_with_its_cells(jobs: list[Job]) -> None:
    progress = GridProgress(Console(file=io.StringIO()), len(jobs))
    first, second = (progress.cell_started(job) for job in jobs)
    first.pulse(Pulse(1, 2, 0.5, 1.0, 1.0, 0.1))
    (task,) = progress._grid.tasks
    assert task.completed == pytest.approx(0.475)  # 95 % of a cell is its training
    second.pulse(Pulse(1, 2, 0.2, 1.0, 1.0, 0.1))
    assert task.completed == pytest.approx(0.475 + 0.19)
    first.measuring(20, 20)
    assert task.completed == pytest.approx(1.19)
    progress.cell_done(jobs[1], CELL)
    progress.cell_done(jobs[0], CELL)
    assert task.completed == task.total == 2


def test_cells_side_by_side_have_a_bar_each_and_end_in_any_order(jobs: list[Job]) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, color_system=None)
    with GridProgress(console, len(jobs)) as progress:
        cells = [progress.cell_started(job) for job in jobs]
        for epoch, cell in enumerate(cells, 1):
            cell.pulse(Pulse(epoch, 4, 0.5, 1.0, 1.0, 0.1))
        out.truncate(0)
        progress._live.refresh()
        shown = out.getvalue()
        progress.cell_done(jobs[1], CELL)
        progress.cell_failed(jobs[0], "key", "RuntimeError: broken")
    assert "epoch 1/4" in shown and "epoch 2/4" in shown
    assert shown.index("direct[spiking=false]") < shown.index("epoch 1/4") < shown.index("rate")
    ended = [line for line in out.getvalue().splitlines() if "done  " in line or "failed" in line]
    assert "[2/2] done   rate" in ended[0] and "[1/2] failed direct" in ended[1]
