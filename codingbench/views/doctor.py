"""The report of ``codingbench doctor`` as a table."""

from collections.abc import Sequence
from typing import Final

from codingbench.doctor import Diagnosis
from codingbench.views.fitting import Fitted
from codingbench.views.table import Column, rich_table

_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}
_STATE: Final = Column("", lambda row: row.state, is_number=False, is_prose=True)
_COLUMNS: Final = [
    _STATE,
    Column("what", lambda row: row.name, is_number=False, is_prose=True, is_key=True),
    Column("found", lambda row: _found(row), is_number=False, is_prose=True),
]


def _found(row: Diagnosis) -> str:
    return f"{row.value}\n→ {row.advice}" if row.advice else row.value


def render(diagnoses: Sequence[Diagnosis]) -> Fitted:
    """Return a table with one row per diagnosis; advice is below what was found."""

    def style(row: Diagnosis, column: Column) -> str:
        return _COLOURS[row.state] if column is _STATE else ""

    return rich_table(diagnoses, _COLUMNS, style, gap=3)
