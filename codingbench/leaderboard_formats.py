"""The leaderboard as a table to read, or as JSON, CSV, Markdown or SVG."""

import io
import json
import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from codingbench.energy import FP32_45NM, get_convention
from codingbench.errors import SpecError, StoreError, unknown
from codingbench.formatting import FoldingName, records, three_digits
from codingbench.leaderboard import GROUP, rows
from codingbench.store import DEFAULT_FOLDER, Store


def present(
    store: Store,
    energy: str = "exact",
    sort: str = "accuracy",
    dataset: str | None = None,
    form: str = "table",
) -> str | Group:
    """The leaderboard of a store as text of the format ``form``, or for ``table`` to be printed.

    Raises:
        SpecError: no such convention, sort, data set or format.
        StoreError: the store cannot be read, or has no finished cell.
    """
    if form not in FORMATS:
        raise SpecError(unknown("format", form, FORMATS))
    failures = store.failures()
    if dataset is not None:
        failures = failures[failures["dataset"] == dataset]
    failed = [show_command(key, store.folder) for key in failures["key"]]
    cells = store.read("cells")
    if cells.empty:
        also = f" ({_failed_text(failed)})" if failed else ""
        raise StoreError(
            f"no finished cell in {str(store.folder)!r}{also}; codingbench run adds some"
        )
    return FORMATS[form](rows(cells, energy, sort, dataset), energy, failed)


def show_command(key: str, folder: Path) -> str:
    """What to type to see a cell of the store in ``folder``."""
    where = "" if folder == DEFAULT_FOLDER else f" --results {shlex.quote(str(folder))}"
    return f"codingbench show {key}{where}"


def render(table: pd.DataFrame, energy: str, failed: Sequence[str] = ()) -> Group:
    """A Rich table per group of ``table`` (from :func:`rows`), then what a reader must know.

    Args:
        energy: the convention that ``table`` was made with.
        failed: for each failed cell the command that shows why.
    """
    parts: list[Text | Table] = []
    for heading, conditions, group in _groups(table):
        parts += [Text(heading, style="bold"), Text(conditions, style="dim"), Text()]
        parts += [_rich_table(group, energy), *map(Text, _notes(group)), Text()]
    return Group(*parts, *map(Text, _legend(energy, failed)))


def to_svg(table: pd.DataFrame, energy: str, failed: Sequence[str] = ()) -> str:
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
    console.print(render(table, energy, failed))
    return console.export_svg(title="codingbench leaderboard")


def to_markdown(table: pd.DataFrame, energy: str, failed: Sequence[str] = ()) -> str:
    """What :func:`render` shows, as Markdown tables."""
    lines: list[str] = []
    for heading, conditions, group in _groups(table):
        headings = [column.heading.replace("\n", " ") for column in _columns(energy)]
        ruler = ["---:" if column.is_number else "---" for column in _columns(energy)]
        body = ([column.text(row) for column in _columns(energy)] for row in group.itertuples())
        lines += [f"### {heading}", "", conditions, ""]
        for cells in (headings, ruler, *body):
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        lines += ["", *(f"- {note}" for note in _notes(group)), ""]
    return "\n".join([*lines, *(f"- {line}" for line in _legend(energy, failed)), ""])


def to_csv(table: pd.DataFrame) -> str:
    """The columns of :func:`rows` at full precision; ``keys`` separated by spaces."""
    return table.assign(keys=table["keys"].map(" ".join)).to_csv(index=False, lineterminator="\n")


def to_json(table: pd.DataFrame) -> str:
    """A list with one object per row, its keys the columns of :func:`rows`, at full precision."""
    return json.dumps(records(table), indent=2, allow_nan=False) + "\n"


@dataclass(frozen=True)
class _Column:
    heading: str
    text: Callable[[Any], str]
    """Of one row, a named tuple with the columns of :func:`rows` as fields."""
    ranked: str = ""
    """The field whose best value is emphasised."""
    is_number: bool = True


def _columns(energy: str) -> list[_Column]:
    return [
        _Column("rank", lambda row: str(row.rank)),
        _Column("encoder", lambda row: row.encoder, is_number=False),
        _Column("backbone", lambda row: row.backbone, is_number=False),
        _Column("T", lambda row: str(row.num_steps)),
        _Column("seeds", _seeds_text),
        _Column("accuracy %", _accuracy_text, "accuracy"),
        _Column("firing\nrate %", lambda row: f"{100 * row.firing_rate:.2f}", "firing_rate"),
        _Column(f"µJ/image\n({energy})", lambda row: three_digits(row.energy_uj), "energy_uj"),
        _Column("parameters", lambda row: f"{row.parameters:,}", "parameters"),
    ]


def _seeds_text(row: Any) -> str:
    mark = "†" if row.seeds == 1 else "§" if row.mixed_code else ""
    return f"{row.seeds}{mark}"


def _accuracy_text(row: Any) -> str:
    """In percent; one run gets no more decimals than one test image more or less can move."""
    mark = "" if row.above_chance else "‡"
    if row.seeds > 1:
        return f"{100 * row.accuracy:.2f} ± {100 * row.accuracy_std:.2f}{mark}"
    decimals = min(2, max(0, math.ceil(math.log10(row.images / 100))))
    return f"{100 * row.accuracy:.{decimals}f} ± —{mark}"


def _groups(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Per group a heading, the further conditions, and the rows, in the order of the table."""
    for _, group in table.groupby(GROUP, dropna=False):
        first: Any = next(group.itertuples())
        yield (
            f"{first.dataset}, recipe {first.recipe}, {first.epochs} epochs, "
            f"{first.train_samples:,} training images, backbone {first.backbone}",
            f"batch size {first.batch_size}, {first.precision}, "
            f"{first.test_samples:,} test images, chance {100 * first.chance:.3g} %",
            group,
        )


def _rich_table(group: pd.DataFrame, energy: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0)
    columns = _columns(energy)
    for column in columns:
        table.add_column(
            Text(column.heading),
            justify="right" if column.is_number else "left",
            no_wrap=column.is_number,
            overflow="fold",
        )
    best = {column.ranked: _best(group[column.ranked]) for column in columns if column.ranked}
    for row in group.itertuples():
        styles = (
            "bold green" if c.ranked and getattr(row, c.ranked) == best[c.ranked] else ""
            for c in columns
        )
        cells = (
            Text(c.text(row), style) if c.is_number else FoldingName(c.text(row))
            for c, style in zip(columns, styles, strict=True)
        )
        table.add_row(*cells)
    return table


def _best(values: "pd.Series[Any]") -> Any:
    """The highest accuracy or the lowest of the rest; None where all values are equal."""
    if values.nunique() < 2:
        return None
    return values.max() if values.name == "accuracy" else values.min()


def _notes(group: pd.DataFrame) -> Iterator[str]:
    """One line for each mark that occurs in the group, and for the cells left out."""
    if (group["seeds"] == 1).any():
        yield "† n=1: no spread"
    if not group["above_chance"].all():
        chance, images = group[["chance", "images"]].iloc[0]
        yield (
            f"‡ not above chance: within 3 standard deviations of {100 * chance:.3g} % "
            f"on {images:,.0f} test images"
        )
    if (group["mixed_code"] & (group["seeds"] > 1)).any():
        yield "§ not all seeds were run by the same code, recipe and data"
    older = int(group["superseded"].sum())
    if older:
        yield f"{older} older {_cells(older)} of the same coordinates left out (the code changed)"


def _legend(energy: str, failed: Sequence[str]) -> Iterator[str]:
    """What the energies are, and how to see why cells failed."""
    technology = FP32_45NM
    yield (
        f"energy ({energy}): {get_convention(energy).summary}; {technology.name}, "
        f"{technology.mac_pj} pJ per MAC, {technology.ac_pj} pJ per AC"
    )
    if failed:
        yield _failed_text(failed)


def _failed_text(failed: Sequence[str]) -> str:
    more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
    return f"{len(failed)} failed {_cells(len(failed))}: {', '.join(failed[:3])}{more}"


def _cells(count: int) -> str:
    return "cell" if count == 1 else "cells"


FORMATS: Final[dict[str, Callable[[pd.DataFrame, str, Sequence[str]], str | Group]]] = {
    "table": render,
    "json": lambda table, *_: to_json(table),
    "csv": lambda table, *_: to_csv(table),
    "markdown": to_markdown,
    "svg": to_svg,
}
"""What ``--format`` takes."""
