"""A leaderboard as Markdown, with the command that runs each row again, and what to cite."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from codingbench.analysis.citation import bibtex, sources
from codingbench.analysis.commands import commands, remarks
from codingbench.analysis.finished import legend
from codingbench.analysis.groups import groups
from codingbench.views.leaderboard import Column, Origin, View


def to_markdown(view: View, failed: Sequence[str] = ()) -> str:
    """What :func:`render` shows, as Markdown tables; and where the view has an origin, how to run
    each row again and what to cite."""
    lines: list[str] = []
    for heading, conditions, group in (view.groups or groups)(view.frame):
        lines += [f"### {heading}", "", conditions, ""]
        lines += [view.caption, ""] if view.caption else []
        for columns in (view.columns, *view.further):
            lines += [*_markdown_table(group, columns), ""]
        lines += [*(f"- {note}" for note in view.notes(group)), ""]
        lines += _reproduce(group, view.origin) if view.origin else []
    lines += [f"- {line}" for line in legend(view, failed)]
    lines += _cite(view.origin) if view.origin else []
    return "\n".join([*lines, ""])


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
    by_key = {cell["key"]: cell for cell in cells.to_dict("records")}
    yield from ("#### Reproduce", "", "```sh")
    rows_shown: Iterator[Any] = group.itertuples()
    for row in rows_shown:
        if row.keys:  # a published row has none
            # No line begins with what a stranger may have written, so none can end the block. A
            # shell that reads comments as commands gets quoted words.
            yield f"# {shlex.quote(row.encoder)}, T={row.num_steps}"
            yield from commands([by_key[key] for key in row.keys])
    yield from ("```", "", *(f"- {remark}" for remark in remarks(cells)), "")


def _cite(origin: Origin) -> Iterator[str]:
    yield from ("", "### Cite", "", "```bibtex", bibtex(origin.cells), "```", "")
    yield from ("Sources of what was run, and of its energies:", "")
    encoders, backbones, recipes = (
        sorted(origin.cells[axis].unique()) for axis in ("encoder", "backbone", "recipe")
    )
    found = sources(encoders, backbones, recipes, origin.pricings)
    yield from (f"- {what}: {source}" for what, source in found.items())
