"""The finished and failed cells of a store, and the line that names the failed ones."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from codingbench.analysis.selection import EVERYTHING, Selection
from codingbench.errors import SpecError, StoreError
from codingbench.registry import network_name
from codingbench.runtime.formatting import counted
from codingbench.store.absence import nothing_in, of_folder, run_command
from codingbench.store.folder import Store
from codingbench.store.learning import read_cells
from codingbench.store.lookup import find_all
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
        raise StoreError(f"{nothing_in(store.folder)}{also}; {run_command(store.folder)}")
    return selection.of(cells)


def chosen_cells(store: Store, cells: Sequence[str], selection: Selection) -> list[str]:
    """Return the keys of the cells that a user names, or of the finished ones that options select.

    Args:
        store: the results.
        cells: keys or their first 4 or more characters; ``["all"]`` for all finished cells.
        selection: from the options.

    Raises:
        SpecError: both or neither are given, or they fit no cell.
        StoreError: the store cannot be read, or it has no finished cell.
    """
    if bool(cells) == bool(selection):
        raise SpecError("expected either keys of cells or options that select cells")
    if cells:
        return find_all(store, cells)
    return [str(key) for key in finished_cells(store, selection=selection)["key"]]


def cell_lines(store: Store, keys: Sequence[str]) -> list[str]:
    """Return a line for each of the first cells, and one that counts the others.

    Raises:
        StoreError: the store cannot be read.
    """
    first = keys[:_MOST_LINES]
    rows = [*store.read("cells", first).itertuples(), *store.read("failures", first).itertuples()]
    lines = [
        f"{row.key}  {row.encoder} · {network_name(str(row.backbone), str(row.neuron))} · "
        f"T={row.num_steps} · seed {row.seed} · "
        f"{row.recipe}, {row.epochs} epochs · {row.dataset}"
        for row in rows
    ]
    more = len(keys) - len(first)
    return [*lines, *([f"and {more:,} more"] if more else [])]


def show_command(key: str, *folders: Path) -> str:
    """Return the command that shows a cell of the store in these folders."""
    return f"codingbench show {key}{of_folder(*folders)}"


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
