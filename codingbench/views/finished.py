"""The finished and failed cells of a store, and the line that names the failed ones."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from codingbench.errors import StoreError
from codingbench.runtime.formatting import counted
from codingbench.runtime.paths import as_typed
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
        raise StoreError(f"{_nothing_in(store.folder)}{also}; {_run_command(store.folder)}")
    return cells


def _nothing_in(folder: Path) -> str:
    """Return why a results folder has no finished cell."""
    if not folder.exists():
        return f"there is no results folder {str(folder)!r}"
    if not folder.is_dir():
        return f"expected a results folder, got the file {str(folder)!r}"
    return f"no finished cell in {str(folder)!r}"


def _run_command(folder: Path) -> str:
    return f"codingbench run{of_folder(folder)} adds some"


def show_command(key: str, folder: Path) -> str:
    """Return the command that shows a cell of the store in ``folder``."""
    return f"codingbench show {key}{of_folder(folder)}"


def of_folder(folder: Path) -> str:
    """Return the option that names a results folder, with a space before; empty by default.

    The folder is named as the user typed it, or else relative to the present folder if it is there.
    """
    here, typed = Path.cwd(), Path(as_typed(str(folder)))
    named = typed.relative_to(here) if typed.is_relative_to(here) else typed
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
