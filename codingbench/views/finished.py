"""The finished and failed cells of a store, and the line that names the failed ones."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from codingbench.analysis.selection import EVERYTHING, Selection
from codingbench.errors import StoreError
from codingbench.runtime.formatting import counted
from codingbench.runtime.paths import as_typed
from codingbench.store.folder import DEFAULT_FOLDER, Store
from codingbench.store.learning import read_cells
from codingbench.store.plausible import read

_MOST_LINES = 20


def failures_of(store: Store, selection: Selection = EVERYTHING) -> pd.DataFrame:
    """Return the selected rows of the table ``failures``: one per failed cell.

    Raises:
        StoreError: the store cannot be read.
    """
    return selection.of_failures(read(store, "failures"))


def finished_cells(
    store: Store, failures: pd.DataFrame | None = None, selection: Selection = EVERYTHING
) -> pd.DataFrame:
    """Return the table ``cells``: one row per finished cell, with the facts about its learning.

    Args:
        store: the results.
        failures: the table ``failures``, whose cells the error message names.
        selection: the cells to return.

    Raises:
        SpecError: no finished cell is selected.
        StoreError: the store cannot be read, or it has no finished cell.
    """
    cells = read_cells(store)
    if cells.empty:
        failed = [] if failures is None else failed_text(failures, *store.folders)
        also = f" ({failed[0]})" if failed else ""
        raise StoreError(f"{_nothing_in(store.folder)}{also}; {_run_command(store.folder)}")
    return selection.of(cells)


def cell_lines(store: Store, keys: Sequence[str]) -> list[str]:
    """Return a line for each of the first cells, and one that counts the others.

    Raises:
        StoreError: the store cannot be read.
    """
    first = keys[:_MOST_LINES]
    rows = [*store.read("cells", first).itertuples(), *store.read("failures", first).itertuples()]
    lines = [
        f"{row.key}  {row.encoder} · {row.backbone} · T={row.num_steps} · seed {row.seed} · "
        f"{row.recipe}, {row.epochs} epochs · {row.dataset}"
        for row in rows
    ]
    more = len(keys) - len(first)
    return [*lines, *([f"and {more:,} more"] if more else [])]


def _nothing_in(folder: Path) -> str:
    """Return why a results folder has no finished cell."""
    if not folder.exists():
        return f"there is no results folder {str(folder)!r}"
    if not folder.is_dir():
        return f"expected a results folder, got the file {str(folder)!r}"
    return f"no finished cell in {str(folder)!r}"


def _run_command(folder: Path) -> str:
    return f"codingbench run{of_folder(folder)} adds some"


def show_command(key: str, *folders: Path) -> str:
    """Return the command that shows a cell of the store in these folders."""
    return f"codingbench show {key}{of_folder(*folders)}"


def of_folder(*folders: Path) -> str:
    """Return the options that name results folders, with a space before; empty by default.

    A folder is named as the user typed it, or else relative to the present folder if it is there.
    """
    names = [*map(_named, folders)]
    if names == [DEFAULT_FOLDER]:
        return ""
    return "".join(f" --results {shlex.quote(str(name))}" for name in names)


def _named(folder: Path) -> Path:
    here, typed = Path.cwd(), Path(as_typed(str(folder)))
    return typed.relative_to(here) if typed.is_relative_to(here) else typed


def failed_text(failures: pd.DataFrame, *folders: Path) -> list[str]:
    """Return the line that names the failed cells, or no line if there are none."""
    return failed_line([show_command(key, *folders) for key in failures["key"]])


def failed_line(commands: Sequence[str]) -> list[str]:
    """Return the line that names failed cells by the commands that show why they failed.

    >>> failed_line(["a", "b", "c", "d"])
    ['4 failed cells: a, b, c and 1 more']
    """
    more = f" and {len(commands) - 3} more" if len(commands) > 3 else ""
    line = f"{counted(len(commands), 'failed cell')}: {', '.join(commands[:3])}{more}"
    return [line] if commands else []
