"""The table kit: columns, the views made of them, and how a terminal shows both."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from codingbench.analysis.leaderboard import GROUP, best_rows
from codingbench.energy import Pricing
from codingbench.registry import DEFAULT_NEURON, network_name
from codingbench.runtime.formatting import counted
from codingbench.views.fitting import Fitted, Kind, Line, Shape

MOST_ROWS: Final = 500
"""Rows that a terminal or a picture shows at most; the other formats have all."""

NONE: Final = "—"
"""The text of a value that does not exist."""


@dataclass(frozen=True)
class Column:
    """One column of a table that people read."""

    heading: str
    text: Callable[[Any], str]
    """Return the text of one row. Rows of a data frame are named tuples of its columns."""
    ranked: str = ""
    """The field whose best value is emphasised, if any."""
    is_number: bool = True
    """Numbers are aligned to the right and never wrapped. Names are folded where they join."""
    folds: bool = False
    """Allow a narrow terminal to fold a number at its spaces."""
    is_prose: bool = False
    """Wrap between words instead of folding as a name."""
    is_key: bool = False
    """Repeated where a narrow terminal shows the other columns in several tables. Without such a
    column the first one is."""
    is_optional: bool = False
    """Left out of the table of a group in which no row has a value."""
    raised: Callable[[Any], str] | None = None
    """Return what LaTeX raises behind the text of one row."""
    is_raised: bool = False
    """Left out of LaTeX, where another column raises it."""


def shown(columns: Sequence[Column], rows: Iterable[Any]) -> list[Column]:
    """Return the columns without the optional ones that have a value in none of the rows."""
    found = list(rows)
    return [
        column
        for column in columns
        if not column.is_optional or any(column.text(row) != NONE for row in found)
    ]


def field(
    heading: str, name: str, text: Callable[[Any], str] = str, *, is_number: bool = True
) -> Column:
    """Return a column of rows that are mappings; a value of None is shown as a dash."""

    def shown(row: Any) -> str:
        return NONE if row[name] is None else text(row[name])

    return Column(heading, shown, is_number=is_number)


def or_none(value: Any, text: Callable[[Any], str]) -> str:
    """Return the value as text, or a dash for NaN, NA and None."""
    return NONE if pd.isna(value) else text(value)


def neuron_column() -> Column:
    """Return the column with the model of the neurons, left out where all are the backbone's."""

    def shown(row: Any) -> str:
        return NONE if row.neuron == DEFAULT_NEURON else row.neuron

    return Column("neuron", shown, is_number=False, is_optional=True)


GroupOfRows = tuple[str, str, pd.DataFrame]
"""A heading, the further conditions, and the rows, in the order of the view."""


def by_conditions(table: pd.DataFrame) -> Iterator[GroupOfRows]:
    """Divide rows by the conditions of their runs, ``codingbench.analysis.leaderboard.GROUP``.

    Data sets of one name and different files are told apart by the hash of their files.
    """
    files = table.groupby("dataset")["dataset_fingerprint"].nunique(dropna=False)
    for _, group in table.groupby(GROUP, dropna=False):
        first: Any = next(group.itertuples())
        data = or_none(first.dataset_fingerprint, str)
        named = f" (files {data})" if files[first.dataset] > 1 else ""
        is_whole = pd.isna(first.batch_size) or first.micro_batch == first.batch_size
        pieces = "" if is_whole else f" in micro-batches of {first.micro_batch}"
        # recipes with settings of their own can be compared, too
        epochs = "" if pd.isna(first.epochs) else f"{counted(int(first.epochs), 'epoch')}, "
        batch = "" if pd.isna(first.batch_size) else f"batch size {first.batch_size}{pieces}, "
        yield (
            f"{first.dataset}{named}, recipe {first.recipe}, {epochs}"
            f"{first.train_samples:,} training images, "
            f"backbone {network_name(first.backbone, first.neuron)}",
            f"{batch}{first.precision}, "
            f"{first.test_samples:,} test images, chance {100 * first.chance:.3g} %",
            group,
        )


@dataclass(frozen=True)
class Origin:
    """The cells and formulas behind a view: what to run again and what to cite."""

    cells: pd.DataFrame
    """Those rows of the table ``cells`` that the view averages."""
    pricings: Sequence[Pricing]
    """The pricings of its energies."""
    results: Sequence[Path]
    """The folder of the store."""


@dataclass(frozen=True)
class View:
    """Rows with the columns, notes and legend that a command shows; every format is made of it."""

    frame: pd.DataFrame
    """The rows."""
    columns: Sequence[Column]
    notes: Callable[[pd.DataFrame], Iterable[str]]
    """Return the lines below the table of one group, given its rows."""
    legend: Sequence[str]
    """The lines below all tables."""
    caption: str = ""
    """A line above each table that explains all of its columns."""
    further: Sequence[Sequence[Column]] = ()
    """The columns of further tables of the same rows, shown below the first."""
    groups: Callable[[pd.DataFrame], Iterable[GroupOfRows]] = by_conditions
    """Divide the rows into tables."""
    origin: Origin | None = None
    """None if Markdown does not say how to reproduce the rows."""
    data: pd.DataFrame | None = None
    """The content of JSON and CSV, if it is not ``frame``."""
    top: int | None = None
    """The number of rows of each group that are shown; None: all."""

    @property
    def tables(self) -> list[Sequence[Column]]:
        """The columns of each table of a group, in order."""
        return [self.columns, *self.further]

    def cut(self, group: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a group that are shown."""
        return group if self.top is None else group.head(self.top)

    def cut_notes(self, group: pd.DataFrame) -> list[str]:
        """Return the notes of a group, and the number of its rows that are not shown."""
        shown_rows = self.cut(group)
        hidden = len(group) - len(shown_rows)
        more = [f"{counted(hidden, 'more row')} without --top."] if hidden else []
        return [*more, *self.notes(shown_rows)]


def render(view: View) -> Group:
    """Show a view in the terminal: a table for each group, its notes, then the legend.

    Nobody reads more than ``MOST_ROWS`` rows in a terminal, so the rest is only counted.
    """
    parts: list[RenderableType] = []
    for heading, conditions, group in view.groups(view.frame.head(MOST_ROWS)):
        above = [conditions, view.caption] if view.caption else [conditions]
        parts += [Text(heading, style="bold"), *(Text(line, style="dim") for line in above), Text()]
        for columns in view.tables:
            parts += [_of_group(group, columns, view.cut(group)), Text()]
        parts[-1:] = [*map(Text, view.cut_notes(group)), Text()]
    if (more := len(view.frame) - MOST_ROWS) > 0:
        parts.append(Text(f"{more:,} more rows: --format csv or json has all", style="bold"))
    return Group(*parts, *map(Text, view.legend))


def _of_group(group: pd.DataFrame, columns: Sequence[Column], part: pd.DataFrame) -> Fitted:
    """Build the table of a part of a group, whose best rows are those of the whole group."""
    best = {column.ranked: best_rows(group, column.ranked) for column in columns if column.ranked}

    def style(row: Any, column: Column) -> str:
        return "bold green" if row.Index in best.get(column.ranked, ()) else ""

    rows: list[Any] = list(part.itertuples())
    return rich_table(rows, shown(columns, rows), style, gap=1)


def rich_table(
    rows: Iterable[Any],
    columns: Sequence[Column],
    style: Callable[[Any, Column], str] = lambda row, column: "",
    *,
    gap: int = 2,
    section: Callable[[Any], Any] | None = None,
    has_lines: bool = False,
) -> Fitted:
    """Build the table of some rows; every table of the terminal is made here.

    Args:
        rows: anything that the ``text`` of the columns accepts.
        columns: the columns, in order.
        style: returns the Rich style of one value.
        gap: number of spaces between columns.
        section: an empty line is between rows for which it returns different values.
        has_lines: an empty line is between all rows.
    """
    lines, before = [], None
    for place, row in enumerate(rows):
        now = place if has_lines else section(row) if section else None
        texts = [column.text(row) for column in columns]
        is_new = place > 0 and now != before
        lines.append(Line(texts, [style(row, column) for column in columns], is_new))
        before = now
    return Fitted([_shape(column) for column in columns], lines, gap)


def _shape(column: Column) -> Shape:
    if column.is_prose:
        return Shape(column.heading, "prose", column.is_key)
    kind: Kind = "folding" if column.folds else "number" if column.is_number else "name"
    return Shape(column.heading, kind, column.is_key)


def properties(lines: Iterable[tuple[str, str]]) -> Table:
    """Build a list of names, each with its value beside it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(Text(name), Text(value))
    return table
