"""The report of ``codingbench doctor`` as a table."""

from collections.abc import Sequence
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from codingbench.doctor import Diagnosis

_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


def render(diagnoses: Sequence[Diagnosis]) -> Table:
    """Return a table with one row per diagnosis."""
    table = Table("", "what", "found", "advice", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.columns[0].no_wrap = True
    table.columns[2].overflow = "fold"
    for diagnosis in diagnoses:
        state = Text(diagnosis.state, _COLOURS[diagnosis.state])
        table.add_row(state, *map(Text, (diagnosis.name, diagnosis.value, diagnosis.advice)))
    return table
