"""``codingbench merge``, ``compact`` and ``verify``: commands for whole results folders."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codingbench.cli import options
from codingbench.runtime.paths import user_path

if TYPE_CHECKING:
    from codingbench.store.folder import Store


def merge(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Results folders to copy cells from.", parser=user_path, metavar="PATH"
        ),
    ],
    into: Annotated[
        Path,
        typer.Option(
            help="Results folder to add them to; created if necessary.",
            parser=user_path,
            metavar="PATH",
        ),
    ],
) -> None:
    """Copy the cells of several results folders, for example of several machines, into one.

    If two folders have different results for the same cell, both are kept.

    Example: codingbench merge desk/results cluster/results --into results
    """
    from codingbench.store import merging
    from codingbench.store.folder import Store

    done = merging.merge([Store(folder) for folder in sources], Store(into))
    for conflict in done.conflicts:
        columns = ", ".join(conflict.columns[:3]) + (", ..." if len(conflict.columns) > 3 else "")
        typer.echo(
            f"{conflict.key} differs in {conflict.source.folder}: {columns}; "
            f"that result is kept as {conflict.kept_as}"
        )
    typer.echo(
        f"{done.added} cells added, {done.identical} already there with the same result, "
        f"{len(done.conflicts)} with a different result; {done.failures} failed cells added"
    )


def compact(results: options.ResultsFolder = Path("results")) -> None:
    """Combine the many small files of a results folder into few large ones, for faster reading.

    Other processes can read and write the folder at the same time.

    Example: codingbench compact --results results
    """
    from codingbench.store import compaction
    from codingbench.store.absence import check_has_results
    from codingbench.store.folder import Store

    store = Store(results)
    check_has_results(store.folder)
    done = compaction.compact(store)
    typer.echo(f"{done.gathered} single files combined; there are now {done.parts} compact files")


def verify(
    results: options.ResultsFolder = Path("results"),
    clean: Annotated[
        bool,
        typer.Option(
            "--clean", help="Remove temporary files of killed writes that are older than an hour."
        ),
    ] = False,
    evaluate: Annotated[
        str,
        typer.Option(
            help="Also evaluate these cells again: their keys, separated by commas, or all."
        ),
    ] = "",
    data_dir: options.DataFolder = None,
) -> None:
    """Check every file of a results folder and list those damaged, altered, missing or foreign.

    The exit status is 1 if there are any, if no cell is finished, or if evaluating a cell again
    with its stored weights does not give the same accuracies, predictions and counts.

    Example: codingbench verify --results results --evaluate all
    """
    from codingbench.runtime.formatting import counted
    from codingbench.store import verification
    from codingbench.store.folder import Store

    store = Store(results)
    for path in verification.clean(store) if clean else []:
        typer.echo(f"{path}: removed")
    report = verification.verify(store)
    for finding in report.notes:
        typer.echo(f"{finding.path}: {finding.what} (no error)")
    for finding in report.bad:
        typer.echo(f"{finding.path}: {finding.what}")
    is_good = not report.bad
    state = "all files intact" if is_good else counted(len(report.bad), "bad file")
    typer.echo(f"{counted(report.cells, 'cell')}, {state}")
    if not report.cells:
        typer.echo(f"{str(store.folder)!r} holds no finished cell, so nothing was verified")
        is_good = False
    for key in _keys(store, evaluate):
        is_good &= _gives_same_result(store, key, data_dir)
    if not is_good:
        sys.exit(1)


def _keys(store: "Store", keys: str) -> list[str]:
    if keys == "all":
        return sorted(store.finished())
    return [key.strip() for key in keys.split(",") if key.strip()]


def _gives_same_result(store: "Store", key: str, data_dir: Path | None) -> bool:
    """Evaluate a cell again and print what differs."""
    from codingbench.cells.reevaluation import differences

    found = differences(store, key, data_dir)
    for line in found or [f"{key}: evaluated again, all numbers equal"]:
        typer.echo(line)
    return not found
