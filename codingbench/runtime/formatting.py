"""Values as text: numbers and names for tables, rows of a frame for JSON."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.text import Text


def three_digits(value: float) -> str:
    """Format a number with three significant digits, or with all digits before the point."""
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:,.{max(0, decimals)}f}"


def counted(number: int, noun: str) -> str:
    """Format a number with its noun, whose plural ends in s.

    >>> counted(1, "cell"), counted(1200, "cell")
    ('1 cell', '1,200 cells')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one mapping per row for JSON: None for missing or infinite values, times as text."""
    there = frame.notna() & ~frame.isin([math.inf, -math.inf])
    rows = frame.astype(object).where(there, None).to_dict(orient="records")
    return [
        {
            str(name): value.isoformat() if isinstance(value, pd.Timestamp) else value
            for name, value in row.items()
        }
        for row in rows
    ]


_JOINTS: Final = r"(?<=,)|(?<=[a-z]-)(?=[a-z])|(?<=\.)(?=[a-z])|(?=\[)"
_ALL_JOINTS: Final = rf"{_JOINTS}|(?<==)"


@dataclass(frozen=True)
class FoldingName:
    """A name that a narrow column folds where its parts join, and never cuts."""

    name: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(self._widest(_ALL_JOINTS), len(self.name))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        # A parameter stays on one line with its value where the column is wide enough.
        joints = _JOINTS if self._widest(_JOINTS) <= options.max_width else _ALL_JOINTS
        lines = [""]
        for part in re.split(joints, self.name):
            if lines[-1] and len(lines[-1] + part) > options.max_width:
                lines.append("")
            lines[-1] += part
        # Text, because gac[heads=2] would be taken for markup.
        yield Text("\n".join(lines), overflow="fold")

    def _widest(self, joints: str) -> int:
        return max(map(len, re.split(joints, self.name)))
