"""Numbers as text, and the rows of a data frame as values that JSON can hold."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd


def three_digits(value: float) -> str:
    """Format a number with three significant digits, or with all digits before the point.

    A number that is unknown (NaN) is a dash.
    """
    if math.isnan(value):
        return "—"
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:,.{max(0, decimals)}f}"


_YEAR_S = 365.25 * 86_400


def at_least(value: float, is_lower_bound: bool) -> str:
    """Format a number with three significant digits, marked if the true one is higher.

    >>> at_least(3.5512, True), at_least(3.5512, False)
    ('≥ 3.55', '3.55')
    """
    return f"{'≥ ' if is_lower_bound else ''}{three_digits(value)}"


def seeds_text(seeds: Sequence[int]) -> str:
    """Name seeds.

    >>> seeds_text([2]), seeds_text([0, 2])
    ('seed 2', 'seeds 0, 2')
    """
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def duration(seconds: float) -> str:
    """Format a time in at most two units, and long ones in days or years.

    >>> [duration(seconds) for seconds in (42, 180, 7500, 4e5, 8e7)]
    ['42 s', '3 min', '2 h 5 min', '4.6 days', '2.5 years']
    """
    if seconds >= 2 * _YEAR_S:
        return f"{seconds / _YEAR_S:.1f} years"
    if seconds >= 100 * 3600:
        return f"{seconds / 86_400:.1f} days"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def counted(number: int, noun: str) -> str:
    """Format a number with its noun, whose plural ends in s.

    >>> counted(1, "cell"), counted(1200, "cell")
    ('1 cell', '1,200 cells')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def first_few(names: Iterable[str], most: int = 3) -> str:
    """Return the first names of a list, and the number of the others.

    >>> first_few("abcde"), first_few("ab")
    ('a, b, c and 2 more', 'a, b')
    """
    every = [*names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return f"{', '.join(every[:most])}{more}"


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
