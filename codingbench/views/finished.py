"""The finished and failed cells of a store, and the line that names the failed ones."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from codingbench.errors import StoreError
from codingbench.runtime.formatting import counted
from codingbench.store.absence import nothing_in, of_folder, run_command
from codingbench.store.folder import Store
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
        raise StoreError(f"{nothing_in(store.folder)}{also}; {run_command(store.folder)}")
    return cells


def show_command(key: str, folder: Path) -> str:
    """Return the command that shows a cell of the store in ``folder``."""
    return f"codingbench show {key}{of_folder(folder)}"


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
