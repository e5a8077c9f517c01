"""The finished and failed cells of a store, and the line that names the failed ones."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from codingbench.errors import StoreError
from codingbench.runtime.formatting import counted
from codingbench.store.folder import DEFAULT_FOLDER, Store
from codingbench.store.learning import read_cells
from codingbench.store.plausible import read


def failures_of(store: Store, dataset: str | None = None) -> pd.DataFrame:
    """Return the table ``failures``: one row per failed cell, of all data sets or of one.

    Raises:
        StoreError: the store cannot be read.
    """
    failures = read(store, "failures")
    return failures if dataset is None else failures[failures["dataset"] == dataset]


def finished_cells(store: Store, failures: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the table ``cells``: one row per finished cell, with the facts about its learning.

    Args:
        store: the results.
        failures: the table ``failures``, whose cells the error message names.

    Raises:
        StoreError: the store cannot be read, or it has no finished cell.
    """
    cells = read_cells(store)
    if cells.empty:
        failed = [] if failures is None else failed_text(failures, store.folder)
        also = f" ({failed[0]})" if failed else ""
        raise StoreError(
            f"no finished cell in {str(store.folder)!r}{also}; codingbench run adds some"
        )
    return cells


def show_command(key: str, folder: Path) -> str:
    """Return the command that shows a cell of the store in ``folder``."""
    return f"codingbench show {key}{of_folder(folder)}"


def of_folder(folder: Path) -> str:
    """Return the option that names a results folder, with a space before; empty by default."""
    here = Path.cwd()
    named = folder.relative_to(here) if folder.is_relative_to(here) else folder
    return "" if named == DEFAULT_FOLDER else f" --results {shlex.quote(str(named))}"


def failed_text(failures: pd.DataFrame, folder: Path) -> list[str]:
    """Return the line that names the failed cells, or no line if there are none."""
    return failed_line([show_command(key, folder) for key in failures["key"]])


def failed_line(commands: Sequence[str]) -> list[str]:
    """Return the line that names failed cells by the commands that show why they failed.

    >>> failed_line(["a", "b", "c", "d"])
    ['4 failed cells: a, b, c and 1 more']
    """
    more = f" and {len(commands) - 3} more" if len(commands) > 3 else ""
    line = f"{counted(len(commands), 'failed cell')}: {', '.join(commands[:3])}{more}"
    return [line] if commands else []
