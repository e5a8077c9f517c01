"""The leaderboard as a table to read, or as JSON, CSV, Markdown or SVG."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from codingbench.analysis.bill import with_bill
from codingbench.analysis.break_even import with_ann
from codingbench.analysis.energy_ranks import with_every_convention
from codingbench.analysis.finished import failures_of, finished_cells, legend, show_command
from codingbench.analysis.groups import best_rows, groups
from codingbench.analysis.leaderboard import rows
from codingbench.energy import DEFAULT_PRICING, Pricing, pricings
from codingbench.errors import SpecError, StoreError, unknown
from codingbench.runtime.formatting import FoldingName, records
from codingbench.store.correctness import read_predictions
from codingbench.store.folder import Store
from codingbench.store.plausible import read
from codingbench.views import published
from codingbench.views.leaderboard import (
    Column,
    Origin,
    View,
    against_ann,
    encoder_bill,
    every_convention,
    ranking,
)
from codingbench.views.markdown import to_markdown

MOST_ROWS: Final = 500
"""A table or picture shows no more; the other formats have all."""


def present(
    store: Store,
    pricing: Pricing = DEFAULT_PRICING,
    *,
    sort: str = "accuracy",
    dataset: str | None = None,
    form: str = "table",
    every_energy: bool = False,
    bill: bool = False,
    vs_ann: bool = False,
    beside_published: bool = False,
) -> str | Group:
    """The leaderboard of a store as text of the format ``form``, or for ``table`` to be printed.

    Args:
        store: where the cells are.
        pricing: of the energies.
        sort, dataset: as :func:`codingbench.analysis.leaderboard.rows` takes them.
        form: one of ``FORMATS``.
        every_energy: with the energies by every convention, at the technology of ``pricing``.
        bill: with what each encoder costs and buys.
        vs_ann: with the ANNs of the same shape.
        beside_published: with what others have published of the same data sets.

    Raises:
        SpecError: no such sort, data set or format; two views at once.
        StoreError: the store cannot be read, has no finished cell, or lacks a table.
    """
    if form not in FORMATS:
        raise SpecError(unknown("format", form, FORMATS))
    _check_one_view(
        {
            "--bill": bill,
            "--vs-ann": vs_ann,
            "--published": beside_published,
            "--energy all": every_energy,
        }
    )
    failures = failures_of(store, dataset)
    cells = finished_cells(store, failures)
    failed = [show_command(key, store.folder) for key in failures["key"]]
    answers = partial(read_predictions, store)
    table = rows(cells, pricing, sort=sort, dataset=dataset, answers=answers)
    if every_energy:
        view = every_convention(with_every_convention(table, cells, pricing.technology), pricing)
    elif bill:
        layers = _layers(store, table, "--bill")
        view = encoder_bill(with_bill(table, cells, layers, pricing), pricing)
    elif vs_ann:
        layers = _layers(store, table, "--vs-ann")
        view = against_ann(with_ann(table, cells, layers, pricing), pricing)
    elif beside_published:
        view = published.beside(published.with_published(table), pricing)
    else:
        view = ranking(table, pricing)
    averaged = cells[cells["key"].isin(table["keys"].explode())]
    shown = pricings(["all"], pricing.technology) if every_energy else [pricing]
    return FORMATS[form](replace(view, origin=Origin(averaged, shown)), failed)


def render(view: View, failed: Sequence[str] = ()) -> Group:
    """A Rich table per group of the view, then what a reader must know.

    Of more than ``MOST_ROWS`` rows, which nobody reads in a terminal, the first.

    Args:
        view: what to show.
        failed: for each failed cell the command that shows why.
    """
    parts: list[Text | Table] = []
    for heading, conditions, group in (view.groups or groups)(view.frame.head(MOST_ROWS)):
        above = [conditions, view.caption] if view.caption else [conditions]
        parts += [Text(heading, style="bold"), *(Text(line, style="dim") for line in above), Text()]
        for columns in (view.columns, *view.further):
            parts += [_rich_table(group, columns), Text()]
        parts[-1:] = [*map(Text, view.notes(group)), Text()]
    if (more := len(view.frame) - MOST_ROWS) > 0:
        parts.append(Text(f"{more:,} more rows: --format csv or json has all", style="bold"))
    return Group(*parts, *map(Text, legend(view, failed)))


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


def _rich_table(group: pd.DataFrame, columns: Sequence[Column]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0)
    for column in columns:
        table.add_column(
            Text(column.heading),
            justify="right" if column.is_number else "left",
            no_wrap=column.is_number and not column.folds,
            overflow="fold",
        )
    best = {column.ranked: best_rows(group, column.ranked) for column in columns if column.ranked}
    for row in group.itertuples():
        styles = ("bold green" if row.Index in best.get(c.ranked, ()) else "" for c in columns)
        cells = (
            Text(c.text(row), style) if c.is_number else FoldingName(c.text(row))
            for c, style in zip(columns, styles, strict=True)
        )
        table.add_row(*cells)
    return table


FORMATS: Final[dict[str, Callable[[View, Sequence[str]], str | Group]]] = {
    "table": render,
    "json": lambda view, _: to_json(view.frame),
    "csv": lambda view, _: to_csv(view.frame),
    "markdown": to_markdown,
    "svg": to_svg,
}
"""What ``--format`` takes."""
