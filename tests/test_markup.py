"""Texts from data, plug-ins and users are shown as they are written, never read as markup."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from codingbench.cells.grid import Grid
from codingbench.datasets.catalogue import catalogue
from codingbench.doctor import Diagnosis
from codingbench.views import datasets, doctor
from codingbench.views.downloads import DownloadBars
from codingbench.views.listing import render as render_listing
from codingbench.views.progress import GridProgress
from codingbench.views.robustness_progress import RobustnessProgress
from codingbench.views.table import Column, properties, rich_table

TEXT = "[red]a[/red] [size=224] [/] gac[heads=2]"


def shown(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=300)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_list_of_data_sets_shows_brackets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "[size=224]" in shown(datasets.render(tmp_path))
    info = replace(catalogue()["mnist"], title=TEXT, licence=TEXT, about=TEXT)
    monkeypatch.setattr(datasets, "get_info", lambda name, data_dir=None: info)
    assert shown(datasets.render(tmp_path)).count(TEXT) >= 3
    assert "[size=224]" in shown(render_listing("datasets"))


def test_the_table_kit_shows_brackets_in_every_kind_of_column() -> None:
    kinds: tuple[dict[str, Any], ...] = ({"is_number": True}, {"is_number": False})
    kinds += ({"is_number": False, "is_prose": True},)
    columns = [Column(f"{number} {TEXT}", str, **kind) for number, kind in enumerate(kinds)]
    assert shown(rich_table([TEXT], columns)).count(TEXT) == 6
    assert shown(properties([(TEXT, TEXT)])).count(TEXT) == 2


def test_what_doctor_finds_shows_brackets() -> None:
    assert shown(doctor.render([Diagnosis(TEXT, TEXT, "ok", TEXT)])).count(TEXT) == 3


def test_progress_shows_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=300, force_terminal=True, color_system=None)
    (job,) = Grid(encoders=("rate[gain=2]",)).expand()
    progress = GridProgress(console, 1)
    cell = progress.cell_started(job)
    cell.bar.update(cell._task, description=TEXT)
    assert TEXT in shown(cell.bar) and "rate[gain=2.0]" in shown(progress._display())
    bars = DownloadBars()
    bars._progress.add_task(TEXT, total=10)
    assert TEXT in shown(bars._progress)
    robust = RobustnessProgress(1, 1)
    robust._bar.update(robust._task, description=TEXT)
    assert TEXT in shown(robust._bar)
