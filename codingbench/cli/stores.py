"""``codingbench merge``, ``compact`` and ``verify``: what is done to whole results folders."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codingbench.cli import options

if TYPE_CHECKING:
    from codingbench.store.folder import Store


def merge(
    sources: Annotated[list[Path], typer.Argument(help="Results folders to take cells from.")],
    into: Annotated[Path, typer.Option(help="Results folder to add them to; made if need be.")],
) -> None:
    """Gather the cells of several results folders, as from several machines, into one.

    A cell that two of them have with the same result is one; with different results both are kept.

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
        f"{done.added} cells added, {done.identical} were there with the same result, "
        f"{len(done.conflicts)} with a different one; {done.failures} notes of failed cells added"
    )


def compact(results: options.ResultsFolder = Path("results")) -> None:
    """Gather the many small files of a results folder into few large ones; reads faster.

    Other processes may go on reading and writing the folder meanwhile.

    Example: codingbench compact --results results
    """
    from codingbench.store import compaction
    from codingbench.store.folder import Store

    done = compaction.compact(Store(results))
    typer.echo(f"{done.gathered} parts of single cells gathered; {done.parts} compact parts")


def verify(
    results: options.ResultsFolder = Path("results"),
    clean: Annotated[
        bool,
        typer.Option("--clean", help="Remove what killed writes left more than an hour ago."),
    ] = False,
    evaluate: Annotated[
        str, typer.Option(help="Also measure these cells again: keys, comma-separated, or all.")
    ] = "",
    data_dir: Annotated[Path | None, typer.Option(help="Where data sets are.")] = None,
) -> None:
    """Read every part of a results folder and name those damaged, altered, missing or foreign.

    Leaves with status 1 if there is one, or if a cell that is measured again from its kept weights
    does not give the same accuracies, predictions and counts.

    Example: codingbench verify --results results --evaluate all
    """
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
    good = "all parts sound" if is_good else f"{len(report.bad)} bad"
    typer.echo(f"{report.cells} cells, {good}")
    for key in _asked(store, evaluate):
        is_good &= _comes_out(store, key, data_dir)
    if not is_good:
        sys.exit(1)


def _asked(store: "Store", keys: str) -> list[str]:
    if keys == "all":
        return sorted(store.finished())
    return [key.strip() for key in keys.split(",") if key.strip()]


def _comes_out(store: "Store", key: str, data_dir: Path | None) -> bool:
    """Measure a cell again and tell what differs."""
    from codingbench.cells.reevaluation import differences

    found = differences(store, key, data_dir)
    for line in found or [f"{key}: measured again, all numbers equal"]:
        typer.echo(line)
    return not found
