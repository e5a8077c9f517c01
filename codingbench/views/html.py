"""Tables as HTML, for notebooks. All text is escaped: names may come from other people's files."""

from collections.abc import Iterator, Sequence
from html import escape

import pandas as pd

from codingbench.views.table import MOST_ROWS, Column, View, shown


def to_html(view: View) -> str:
    """Return a table for each group of the view, with its conditions above and its notes below.

    Of more than ``MOST_ROWS`` rows only the first are shown.
    """
    parts = []
    for heading, conditions, group in view.groups(view.frame.head(MOST_ROWS)):
        parts += [f"<p><strong>{escape(heading)}</strong><br>{escape(conditions)}</p>"]
        parts += [_table(group, view.columns), *map(paragraph, view.notes(group))]
    if (more := len(view.frame) - MOST_ROWS) > 0:
        parts.append(paragraph(f"{more:,} more rows: leaderboard() has all"))
    return "".join([*parts, *map(paragraph, view.legend)])


def paragraph(text: str) -> str:
    """Return the text as a paragraph."""
    return f"<p>{escape(text)}</p>"


def preformatted(text: str) -> str:
    """Return the text with its line breaks and spaces."""
    return f"<pre>{escape(text)}</pre>"


def _table(rows: pd.DataFrame, columns: Sequence[Column]) -> str:
    columns = shown(columns, rows.itertuples())
    head = "".join(_cell("th", column, column.heading) for column in columns)
    body = "".join(f"<tr>{''.join(_cells(row, columns))}</tr>" for row in rows.itertuples())
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: object, columns: Sequence[Column]) -> Iterator[str]:
    for column in columns:
        yield _cell("td", column, column.text(row))


def _cell(tag: str, column: Column, text: str) -> str:
    side = "right" if column.is_number else "left"
    return f'<{tag} style="text-align: {side}">{escape(text)}</{tag}>'
