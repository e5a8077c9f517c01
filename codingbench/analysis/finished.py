"""What of a store is shown at all, and what is said of the cells that failed."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from codingbench.errors import StoreError
from codingbench.runtime.formatting import counted
from codingbench.store.folder import DEFAULT_FOLDER, Store
from codingbench.store.plausible import read
from codingbench.views.leaderboard import View


def failures_of(store: Store, dataset: str | None = None) -> pd.DataFrame:
    """One row per failed cell, of all data sets or of one.

    Raises:
        StoreError: the store cannot be read.
    """
    failures = read(store, "failures")
    return failures if dataset is None else failures[failures["dataset"] == dataset]


def finished_cells(store: Store, failures: pd.DataFrame) -> pd.DataFrame:
    """The table ``cells``.

    Raises:
        StoreError: it cannot be read, or there is none; the message then names ``failures``.
    """
    cells = read(store, "cells")
    if cells.empty:
        failed = [show_command(key, store.folder) for key in failures["key"]]
        also = f" ({_failed_text(failed)})" if failed else ""
        raise StoreError(
            f"no finished cell in {str(store.folder)!r}{also}; codingbench run adds some"
        )
    return cells


def show_command(key: str, folder: Path) -> str:
    """What to type to see a cell of the store in ``folder``."""
    where = "" if folder == DEFAULT_FOLDER else f" --results {shlex.quote(str(folder))}"
    return f"codingbench show {key}{where}"


def legend(view: View, failed: Sequence[str]) -> list[str]:
    """What the energies are, and how to see why cells failed."""
    return [*view.legend, _failed_text(failed)] if failed else view.legend


def _failed_text(failed: Sequence[str]) -> str:
    more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
    return f"{counted(len(failed), 'failed cell')}: {', '.join(failed[:3])}{more}"
