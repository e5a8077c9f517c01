"""``codingbench merge``, ``compact`` and ``verify``: commands for whole results folders."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codingbench.cli import options
from codingbench.cli.selecting import selecting
from codingbench.runtime.paths import as_typed, user_path

if TYPE_CHECKING:
    from codingbench.analysis.selection import Selection
    from codingbench.plugins.loading import OwnCode
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


def diff(
    first: Annotated[Path, typer.Argument(help="A results folder.", parser=user_path)],
    second: Annotated[Path, typer.Argument(help="Another one.", parser=user_path)],
    format: Annotated[str, typer.Option(help="Output format: table or json.")] = "table",
) -> None:
    """List the cells that two results folders do not share, or have different results of.

    Columns that say where, when and how fast a cell was run are not compared. The exit status is
    1 if anything differs.

    Example: codingbench diff desk/results cluster/results
    """
    from codingbench.cli.output import write
    from codingbench.store.equality import difference
    from codingbench.store.folder import Store
    from codingbench.views.difference import present

    a, b = Store(first), Store(second)
    found = difference(a, b)
    write(present(a, b, found, format))
    if found.first_only or found.second_only or found.differing:
        sys.exit(1)


@selecting()
def rm(
    selection: "Selection",
    cells: Annotated[
        list[str] | None,
        typer.Argument(help="Keys of cells, or their first 4 or more characters."),
    ] = None,
    results: options.ResultsFolder = Path("results"),
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
) -> None:
    """Remove cells: those named, or the finished ones that the options select.

    Their rows, predictions, weights and checkpoints are removed, also from compact files. Other
    processes can read and write the folder at the same time. A cell that is running is refused.

    Example: codingbench rm --encoders rate --where "epochs < 4"
    """
    from codingbench.errors import SpecError
    from codingbench.runtime.formatting import counted
    from codingbench.runtime.paths import as_typed
    from codingbench.store.folder import Store
    from codingbench.store.removal import remove
    from codingbench.views.finished import cell_lines, chosen_cells

    store = Store(results)
    keys = chosen_cells(store, cells or [], selection)
    what = f"{counted(len(keys), 'cell')} from {as_typed(str(store.folder))}"
    if not yes:
        typer.echo("\n".join(cell_lines(store, keys)), err=True)
        if not sys.stdin.isatty():
            raise SpecError(f"not removed: {what}; --yes removes without asking")
        typer.confirm(f"Remove {what}, with their weights?", abort=True, err=True)
    remove(store, keys)
    typer.echo(f"removed {what}")


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
            help="Also evaluate these cells again: their keys or the first 4 or more characters "
            "of each, separated by commas; or all."
        ),
    ] = "",
    data_dir: options.DataFolder = None,
    plugin: options.Plugin = None,
    trust_code: options.TrustCode = False,
) -> None:
    """Check every file of a results folder and list those damaged, altered, missing or foreign.

    The exit status is 1 if there are any, if no cell is finished, or if evaluating a cell again
    with its stored weights does not give the same accuracies, predictions and counts.

    Example: codingbench verify --results results --evaluate all
    """
    from codingbench.plugins.specs import split_list
    from codingbench.runtime.formatting import counted
    from codingbench.store import verification
    from codingbench.store.folder import Store
    from codingbench.store.lookup import find_all

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
    own = options.own_code(plugin, trust_code)
    for key in find_all(store, split_list(evaluate)) if evaluate else []:
        is_good &= _gives_same_result(store, key, data_dir, own)
    if not is_good:
        sys.exit(1)


def _gives_same_result(store: "Store", key: str, data_dir: Path | None, own: "OwnCode") -> bool:
    """Evaluate a cell again and print what differs, or why it cannot be evaluated."""
    from codingbench.cells.reevaluation import differences
    from codingbench.errors import CodingbenchError

    try:
        found = differences(store, key, data_dir, own)
    except CodingbenchError as error:  # the other cells are still evaluated
        reason = as_typed(str(error))
        found = [reason if reason.startswith(key) else f"{key}: {reason}"]
    for line in found or [f"{key}: evaluated again, all numbers equal"]:
        typer.echo(line)
    return not found
