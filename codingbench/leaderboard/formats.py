"""The leaderboard as a table to read, or as JSON, CSV, Markdown or SVG."""

import io
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from codingbench.citation import bibtex, sources
from codingbench.energy import CONVENTIONS, DEFAULT_TECHNOLOGY
from codingbench.errors import SpecError, StoreError, unknown
from codingbench.formatting import FoldingName, records
from codingbench.leaderboard import published
from codingbench.leaderboard.bill import with_bill
from codingbench.leaderboard.break_even import with_ann
from codingbench.leaderboard.energy_ranks import with_every_convention
from codingbench.leaderboard.rows import GROUP, rows
from codingbench.leaderboard.ties import VALUE
from codingbench.leaderboard.views import (
    Column,
    Origin,
    View,
    against_ann,
    encoder_bill,
    every_convention,
    ranking,
)
from codingbench.reproducing import commands, remarks
from codingbench.store.correctness import read_answers
from codingbench.store.folder import DEFAULT_FOLDER, Store
from codingbench.store.plausible import read

EVERY_CONVENTION: Final = "all"
"""What ``--energy`` takes beside the conventions' names."""

MOST_ROWS: Final = 500
"""A table or picture shows no more; the other formats have all."""


def present(
    store: Store,
    energy: str = "exact",
    sort: str = "accuracy",
    dataset: str | None = None,
    form: str = "table",
    technology: str = DEFAULT_TECHNOLOGY,
    *,
    bill: bool = False,
    vs_ann: bool = False,
    beside_published: bool = False,
) -> str | Group:
    """The leaderboard of a store as text of the format ``form``, or for ``table`` to be printed.

    Args:
        store: where the cells are.
        energy: an energy convention, or ``all``.
        sort, dataset, technology: as :func:`codingbench.leaderboard.rows.rows` takes them.
        form: one of ``FORMATS``.
        bill: with what each encoder costs and buys.
        vs_ann: with the ANNs of the same shape.
        beside_published: with what others have published of the same data sets.

    Raises:
        SpecError: no such convention, technology, sort, data set or format; two views at once.
        StoreError: the store cannot be read, has no finished cell, or lacks a table.
    """
    if form not in FORMATS:
        raise SpecError(unknown("format", form, FORMATS))
    _check_one_view(
        {
            "--bill": bill,
            "--vs-ann": vs_ann,
            "--published": beside_published,
            "--energy all": energy == EVERY_CONVENTION,
        }
    )
    failures = read(store, "failures")
    if dataset is not None:
        failures = failures[failures["dataset"] == dataset]
    failed = [show_command(key, store.folder) for key in failures["key"]]
    cells = read(store, "cells")
    if cells.empty:
        also = f" ({_failed_text(failed)})" if failed else ""
        raise StoreError(
            f"no finished cell in {str(store.folder)!r}{also}; codingbench run adds some"
        )
    answers = partial(read_answers, store)
    conventions = [*CONVENTIONS] if energy == EVERY_CONVENTION else [energy]  # exact is first
    table = rows(cells, conventions[0], sort, dataset, technology, answers)
    if energy == EVERY_CONVENTION:
        view = every_convention(with_every_convention(table, cells, technology), technology)
    elif bill:
        layers = _layers(store, table, "--bill")
        view = encoder_bill(with_bill(table, cells, layers, energy, technology), energy, technology)
    elif vs_ann:
        layers = _layers(store, table, "--vs-ann")
        view = against_ann(with_ann(table, cells, layers, energy, technology), energy, technology)
    elif beside_published:
        view = published.beside(published.with_published(table), energy, technology)
    else:
        view = ranking(table, energy, technology)
    averaged = cells[cells["key"].isin(table["keys"].explode())]
    return FORMATS[form](replace(view, origin=Origin(averaged, conventions, technology)), failed)


def show_command(key: str, folder: Path) -> str:
    """What to type to see a cell of the store in ``folder``."""
    where = "" if folder == DEFAULT_FOLDER else f" --results {shlex.quote(str(folder))}"
    return f"codingbench show {key}{where}"


def render(view: View, failed: Sequence[str] = ()) -> Group:
    """A Rich table per group of the view, then what a reader must know.

    Of more than ``MOST_ROWS`` rows, which nobody reads in a terminal, the first.

    Args:
        view: what to show.
        failed: for each failed cell the command that shows why.
    """
    parts: list[Text | Table] = []
    for heading, conditions, group in (view.groups or _groups)(view.frame.head(MOST_ROWS)):
        above = [conditions, view.caption] if view.caption else [conditions]
        parts += [Text(heading, style="bold"), *(Text(line, style="dim") for line in above), Text()]
        for columns in (view.columns, *view.further):
            parts += [_rich_table(group, columns), Text()]
        parts[-1:] = [*map(Text, view.notes(group)), Text()]
    if (more := len(view.frame) - MOST_ROWS) > 0:
        parts.append(Text(f"{more:,} more rows: --format csv or json has all", style="bold"))
    return Group(*parts, *map(Text, _legend(view, failed)))


def to_svg(view: View, failed: Sequence[str] = ()) -> str:
    """:func:`render` as an SVG picture, 100 columns wide."""
    # The picture must not depend on the terminal that it is made in.
    console = Console(
        record=True,
        file=io.StringIO(),
        width=100,
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
    )
    console.print(render(view, failed))
    return console.export_svg(title="codingbench leaderboard")


def to_markdown(view: View, failed: Sequence[str] = ()) -> str:
    """What :func:`render` shows, as Markdown tables; and where the view has an origin, how to run
    each row again and what to cite."""
    lines: list[str] = []
    for heading, conditions, group in (view.groups or _groups)(view.frame):
        lines += [f"### {heading}", "", conditions, ""]
        lines += [view.caption, ""] if view.caption else []
        for columns in (view.columns, *view.further):
            lines += [*_markdown_table(group, columns), ""]
        lines += [*(f"- {note}" for note in view.notes(group)), ""]
        lines += _reproduce(group, view.origin) if view.origin else []
    lines += [f"- {line}" for line in _legend(view, failed)]
    lines += _cite(view.origin) if view.origin else []
    return "\n".join([*lines, ""])


def to_csv(table: pd.DataFrame) -> str:
    """The columns of a view's frame at full precision; the items of a list separated by spaces."""

    def text(value: Any) -> Any:
        return " ".join(map(str, value)) if isinstance(value, list) else value

    # map turns whole numbers that may be null into real ones
    lists = [name for name in table if table[name].dtype == object]
    return table.assign(**{str(name): table[name].map(text) for name in lists}).to_csv(
        index=False, lineterminator="\n"
    )


def to_json(table: pd.DataFrame) -> str:
    """A list with one object per row, its keys the columns of the frame, at full precision."""
    return json.dumps(records(table), indent=2, allow_nan=False) + "\n"


def _check_one_view(asked: dict[str, bool]) -> None:
    first, *others = [option for option, is_asked in asked.items() if is_asked] or [""]
    if others:
        raise SpecError(f"{first} and {others[0]} are different tables: expected one of them")


def _layers(store: Store, table: pd.DataFrame, option: str) -> pd.DataFrame:
    """The layers of the cells in ``table``."""
    keys = set(table["keys"].explode())
    layers = read(store, "layers", keys)
    there = len(keys & set(layers["key"]))
    if there < len(keys):
        raise StoreError(
            f"{option} needs the table 'layers': {str(store.folder)!r} has it for {there} of the "
            f"{len(keys)} cells shown"
        )
    return layers


def _groups(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Per group a heading, the further conditions, and the rows, in the order of the table."""
    for _, group in table.groupby(GROUP, dropna=False):
        first: Any = next(group.itertuples())
        whole = first.micro_batch == first.batch_size
        pieces = "" if whole else f" in pieces of {first.micro_batch}"
        yield (
            f"{first.dataset}, recipe {first.recipe}, {first.epochs} epochs, "
            f"{first.train_samples:,} training images, backbone {first.backbone}",
            f"batch size {first.batch_size}{pieces}, {first.precision}, "
            f"{first.test_samples:,} test images, chance {100 * first.chance:.3g} %",
            group,
        )


def _markdown_table(group: pd.DataFrame, columns: Sequence[Column]) -> Iterator[str]:
    headings = [column.heading.replace("\n", " ") for column in columns]
    ruler = ["---:" if column.is_number else "---" for column in columns]
    body = ([column.text(row) for column in columns] for row in group.itertuples())
    for cells in (headings, ruler, *body):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _reproduce(group: pd.DataFrame, origin: Origin) -> Iterator[str]:
    """The commands of the rows that were measured; nothing where none was."""
    cells = origin.cells[origin.cells["key"].isin(group["keys"].explode())]
    if cells.empty:
        return
    # objects: rows taken out of Arrow's columns one by one take milliseconds each
    by_key = cells.astype(object).set_index("key", drop=False)
    yield from ("#### Reproduce", "", "```sh")
    rows_shown: Iterator[Any] = group.itertuples()
    for row in rows_shown:
        if row.keys:  # a published row has none
            # No line begins with what a stranger may have written, so none can end the block. A
            # shell that reads comments as commands gets quoted words.
            yield f"# {shlex.quote(row.encoder)}, T={row.num_steps}"
            yield from commands(by_key.loc[row.keys])
    yield from ("```", "", *(f"- {remark}" for remark in remarks(by_key)), "")


def _cite(origin: Origin) -> Iterator[str]:
    yield from ("", "### Cite", "", "```bibtex", bibtex(origin.cells), "```", "")
    yield from ("Sources of what was run, and of its energies:", "")
    encoders, backbones, recipes = (
        sorted(origin.cells[axis].unique()) for axis in ("encoder", "backbone", "recipe")
    )
    found = sources(encoders, backbones, recipes, origin.conventions, [origin.technology])
    yield from (f"- {what}: {source}" for what, source in found.items())


def _rich_table(group: pd.DataFrame, columns: Sequence[Column]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0)
    for column in columns:
        table.add_column(
            Text(column.heading),
            justify="right" if column.is_number else "left",
            no_wrap=column.is_number and not column.folds,
            overflow="fold",
        )
    best = {column.ranked: _best(group, column.ranked) for column in columns if column.ranked}
    for row in group.itertuples():
        styles = ("bold green" if row.Index in best.get(c.ranked, ()) else "" for c in columns)
        cells = (
            Text(c.text(row), style) if c.is_number else FoldingName(c.text(row))
            for c, style in zip(columns, styles, strict=True)
        )
        table.add_row(*cells)
    return table


def _best(group: pd.DataFrame, field: str) -> set[Any]:
    """The rows to emphasise: of lowest cost, or not told apart from the best accuracy.

    None where all are equally good. A single run is never called best.
    """
    several = group[group["seeds"] > 1]
    if field != "accuracy":
        best = several[field] <= several[field].min() * (1 + 1e-9)  # equal but for rounding
    else:
        best = several["rank"].eq(1) & several["rank_basis"].ne(VALUE)
    return set() if best.all() else set(several.index[best])


def _legend(view: View, failed: Sequence[str]) -> list[str]:
    """What the energies are, and how to see why cells failed."""
    return [*view.legend, _failed_text(failed)] if failed else view.legend


def _failed_text(failed: Sequence[str]) -> str:
    cells = "cell" if len(failed) == 1 else "cells"
    more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
    return f"{len(failed)} failed {cells}: {', '.join(failed[:3])}{more}"


FORMATS: Final[dict[str, Callable[[View, Sequence[str]], str | Group]]] = {
    "table": render,
    "json": lambda view, _: to_json(view.frame),
    "csv": lambda view, _: to_csv(view.frame),
    "markdown": to_markdown,
    "svg": to_svg,
}
"""What ``--format`` takes."""
