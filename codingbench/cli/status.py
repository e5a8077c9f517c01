"""``codingbench status``."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codingbench.cli.output import write

if TYPE_CHECKING:
    from codingbench.store.progress import CellName


def status(
    results: Annotated[
        Path | None,
        typer.Option(help="Results folder. [default: the file's, or results]", show_default=False),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Show the cells of this TOML file only, also those never begun."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Renew the table every second until Ctrl-C.")
    ] = False,
    format: Annotated[str, typer.Option(help="Output format: table or json.")] = "table",
) -> None:
    """Show which cells are done, running, stopped, failed or waiting, from the results alone.

    Runs in any process or on any machine that writes to the folder are seen. A cell is stopped if
    it is partly trained and no process is working on it.

    Example: codingbench status --watch
    """
    from codingbench.analysis import status as analysis
    from codingbench.errors import SpecError
    from codingbench.store.folder import DEFAULT_FOLDER, Store
    from codingbench.views import status as view

    if watch and format != "table":
        raise SpecError(f"--watch shows a table, got --format {format}")
    if watch and not sys.stdout.isatty():
        raise SpecError("--watch needs a terminal; expected stdout to be one")
    cells, folder = _configured(config) if config else (None, DEFAULT_FOLDER)
    store = Store(results or folder)
    if not watch:
        write(view.present(analysis.status(store, cells), format))
        return
    from rich.console import Console

    view.watch(lambda: analysis.status(store, cells), Console())


def _configured(config: Path) -> tuple[Mapping[str, "CellName"], Path]:
    """Return the names of the cells of a file by key, and its results folder.

    Raises:
        SpecError: the grid is not valid, or the files of a data set are not on this machine.
    """
    from codingbench.runtime.openmp import prepare_torch

    prepare_torch()
    from codingbench.cells.data import known_fingerprints
    from codingbench.cells.run import keyed
    from codingbench.cells.settings import parse_settings, read_config
    from codingbench.errors import SpecError
    from codingbench.executors.heartbeat import name_of

    settings = parse_settings(read_config(config))
    jobs = settings.grid.expand()
    fingerprints = known_fingerprints(jobs, settings.grid.data_dir)
    for job in jobs:
        if job.cell.dataset not in fingerprints:
            raise SpecError(
                f"the files of {job.cell.dataset} are not on this machine, but the keys of the "
                "cells depend on them; without --config, status shows what the results know"
            )
    cells = {key: name_of(job.cell) for key, job in keyed(jobs, fingerprints).items()}
    return cells, settings.results
