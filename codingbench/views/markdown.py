"""Views as Markdown, with the commands that run each row again and the sources to cite."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from codingbench.analysis.citation import bibtex, sources
from codingbench.analysis.commands import commands, remarks
from codingbench.views.table import Column, Origin, View, shown


def to_markdown(view: View) -> str:
    """Return the tables, notes and legend of a view as Markdown.

    If the origin of the view is known, the commands that reproduce each row and the sources to
    cite follow.
    """
    lines: list[str] = []
    for heading, conditions, group in view.groups(view.frame):
        lines += [f"### {heading}", "", conditions, ""]
        lines += [view.caption, ""] if view.caption else []
        for columns in view.tables:
            lines += [*_table(view.cut(group), columns), ""]
        lines += [*(f"- {note}" for note in view.cut_notes(group)), ""]
        lines += _reproduce(view.cut(group), view.origin) if view.origin else []
    lines += [f"- {line}" for line in view.legend]
    lines += _cite(view.origin) if view.origin else []
    return "\n".join([*lines, ""])


def _table(group: pd.DataFrame, columns: Sequence[Column]) -> Iterator[str]:
    rows: list[Any] = list(group.itertuples())
    columns = shown(columns, rows)
    headings = [column.heading.replace("\n", " ") for column in columns]
    ruler = ["---:" if column.is_number else "---" for column in columns]
    body = ([column.text(row) for column in columns] for row in rows)
    for cells in (headings, ruler, *body):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _reproduce(group: pd.DataFrame, origin: Origin) -> Iterator[str]:
    """Yield the commands of the measured rows, or nothing if no row was measured."""
    cells = origin.cells[origin.cells["key"].isin(group["keys"].explode())]
    if cells.empty:
        return
    by_key = {cell["key"]: cell for cell in cells.to_dict("records")}
    yield from ("#### Reproduce", "", "```sh")
    rows_shown: Iterator[Any] = group.itertuples()
    for row in rows_shown:
        if row.keys:  # a published row has none
            # A store may come from a stranger. No line begins with its texts, so none can end the
            # block, and they are quoted for shells that read comments as commands.
            yield f"# {shlex.quote(row.encoder)}, T={row.num_steps}"
            yield from commands([by_key[key] for key in row.keys], origin.results)
    yield from ("```", "", *(f"- {remark}" for remark in remarks(cells, origin.results)), "")


def _cite(origin: Origin) -> Iterator[str]:
    yield from ("", "### Cite", "", "```bibtex", bibtex(origin.cells), "```", "")
    yield from ("Sources of the codings, backbones, recipes and energies:", "")
    encoders, backbones, recipes, neurons = (
        sorted(origin.cells[axis].unique()) for axis in ("encoder", "backbone", "recipe", "neuron")
    )
    found = sources(encoders, backbones, recipes, origin.pricings, neurons)
    yield from (f"- {what}: {source}" for what, source in found.items())
