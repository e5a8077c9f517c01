"""Views as LaTeX tables with booktabs, for papers.

Only the highest mean accuracy is bold, and only if it is significantly ahead of the second row. The
letters of the tests stand as superscripts behind the accuracies.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pandas as pd

from codingbench.analysis.leaderboard import best_rows
from codingbench.views.table import Column, View, shown

_PACKAGES: Final = r"% needs \usepackage{booktabs}"

_MATHS: Final = {
    "±": r"\pm",
    "≥": r"\geq",
    "≤": r"\leq",
    "≠": r"\neq",
    "\u00d7": r"\times",
    "Δ": r"\Delta",
    "∅": r"\emptyset",
    "↗": r"\nearrow",
    "<": "<",
    ">": ">",
}
_TEXTS: Final = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "µ": r"\textmu{}",
    "—": "---",
    "\u2013": "--",
    "…": r"\dots{}",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "¶": r"\P{}",
}
_CHARACTERS: Final = (
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {character: f"{{{character}}}" for character in "[]*\"'`"}  # would be taken for syntax
    | {character: f"${command}$" for character, command in _MATHS.items()}
    | _TEXTS
)
"""Replacements of the characters that LaTeX would not print as they are."""

_LAST_LETTER: Final = "\u017f"  # the end of Latin Extended-A, which LaTeX's default fonts have


def to_latex(view: View) -> str:
    """Return a table environment for each group, with its notes and the legend below it."""
    lines = [_PACKAGES]
    for heading, conditions, group in view.groups(view.frame):
        caption = " ".join(f"{text}." for text in (heading, conditions, view.caption) if text)
        lines += ["", r"\begin{table}", r"\centering", rf"\caption{{{escaped(caption)}}}"]
        for columns in view.tables:
            lines += [*_tabular(group, columns, view.cut(group)), ""]
        lines += [*_below([*view.cut_notes(group), *view.legend]), r"\end{table}"]
    return "\n".join([*lines, ""])


def escaped(text: str) -> str:
    r"""Return text that LaTeX prints as it is; characters of other scripts become ``?``.

    >>> escaped("gac_control[arm=half] 50 % ± 1")
    'gac\\_control{[}arm=half{]} 50 \\% $\\pm$ 1'
    """
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character in _CHARACTERS:
        return _CHARACTERS[character]
    if character.isspace():
        return " "
    return character if character.isprintable() and character <= _LAST_LETTER else "?"


def _tabular(group: pd.DataFrame, columns: Sequence[Column], part: pd.DataFrame) -> Iterator[str]:
    rows: list[Any] = list(part.itertuples())
    columns = [column for column in shown(columns, rows) if not column.is_raised]
    is_accuracy = any(column.ranked == "accuracy" for column in columns)
    best = best_rows(group, "accuracy") if is_accuracy else set()
    yield rf"\begin{{tabular}}{{{''.join('r' if c.is_number else 'l' for c in columns)}}}"
    yield r"\toprule"
    yield from _headings(columns)
    yield r"\midrule"
    for row in rows:
        yield _line(_value(row, column, row.Index in best) for column in columns)
    yield from (r"\bottomrule", r"\end{tabular}")


def _headings(columns: Sequence[Column]) -> Iterator[str]:
    """Yield the lines of the headings, the last of which is above the rule."""
    headings = [column.heading.split("\n") for column in columns]
    most = max(map(len, headings))
    padded = [[""] * (most - len(lines)) + lines for lines in headings]
    yield from (_line(map(escaped, texts)) for texts in zip(*padded, strict=True))


def _value(row: Any, column: Column, is_best: bool) -> str:
    text = escaped(column.text(row))
    if is_best and column.ranked == "accuracy":
        text = rf"\textbf{{\boldmath {text}}}"
    raised = column.raised(row) if column.raised else ""
    return rf"{text}\textsuperscript{{{escaped(raised)}}}" if raised.isalpha() else text


def _line(texts: "Iterator[str] | map[str]") -> str:
    return rf"{' & '.join(texts)} \\"


def _below(notes: Sequence[str]) -> Iterator[str]:
    """Yield the notes in small print; commands, which are indented, as comments of the source."""
    yield from (r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize")
    for note in notes:
        is_command = note.startswith("  ")
        yield f"% {escaped(note.strip())}" if is_command else rf"{escaped(note)}\par"
    yield r"\end{minipage}"
