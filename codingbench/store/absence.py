"""Reasons why a results folder holds nothing to read, with the command that changes this."""

import shlex
from pathlib import Path

from codingbench.errors import StoreError
from codingbench.runtime.paths import as_typed
from codingbench.schema import TABLES
from codingbench.store.folder import DEFAULT_FOLDER


def check_has_results(folder: Path) -> None:
    """Check that a results folder has a table.

    Raises:
        StoreError: it has none, it is a file, or it does not exist.
    """
    if not any((folder / table).is_dir() for table in TABLES):
        raise StoreError(f"{nothing_in(folder)}; {run_command(folder)}")


def nothing_in(folder: Path) -> str:
    """Return why a results folder has no finished cell."""
    if not folder.exists():
        return f"there is no results folder {str(folder)!r}"
    if not folder.is_dir():
        return f"expected a results folder, got the file {str(folder)!r}"
    return f"no finished cell in {str(folder)!r}"


def run_command(folder: Path) -> str:
    """Return which command adds cells to a results folder, as the end of a sentence."""
    if folder.exists() and not folder.is_dir():
        return "codingbench run --results PATH makes a folder"
    return f"codingbench run{of_folder(folder)} adds some"


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
