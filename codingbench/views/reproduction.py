"""The result of a reproduction, as a table or as JSON."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Group
from rich.text import Text

from codingbench.literature.reproduction import Point, Protocol
from codingbench.views.table import NONE, Column, rich_table


def render(
    protocol: Protocol,
    points: Sequence[Point],
    departures: Sequence[str],
    signs: Sequence[str] = (),
) -> Group:
    """Return the points as a table, with the departures from the paper below it.

    ``signs`` are lines about cells that may have learned nothing.
    """
    table = rich_table(points, _COLUMNS, gap=3, section=lambda at: (at.dataset, at.num_steps))
    accuracies = (point for point in points if point.what.startswith("accuracy"))
    sources = dict.fromkeys(point.source for point in accuracies if point.source)
    return Group(
        Text(f"{protocol.title}: reported, and measured here", style="bold"),
        Text(protocol.source, style="dim"),
        Text(),
        table,
        Text(),
        Text(f"reported by: {'; '.join(sources) or 'no listed source'}"),
        Text("measured: mean ± sample standard deviation over n seeds; gap: measured - reported"),
        Text(_CHOSEN_ON_TEST),
        *(Text(f"warning: {sign}", style="bold red") for sign in signs),
        Text(),
        Text("Not as in the paper:", style="bold"),
        *(Text(f"- {line}") for line in departures),
    )


_CHOSEN_ON_TEST: Final = (
    "* chosen by test images, as many papers do, which makes it too high; never ranked or compared"
)


def to_json(
    protocol: Protocol,
    points: Sequence[Point],
    departures: Sequence[str],
    signs: Sequence[str] = (),
) -> str:
    """Return JSON: the protocol, its source, and the other arguments of :func:`render`.

    Points have the fields of :class:`Point`.
    """
    content = {
        "protocol": protocol.name,
        "source": protocol.source,
        "points": [asdict(point) for point in points],
        "departures": list(departures),
        "signs": list(signs),
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _number(point: Point, value: float | None, is_signed: bool = False) -> str:
    """Return a value with the decimals of its kind: millions of parameters have one more."""
    sign = "+" if is_signed or point.what.endswith("points") else ""
    return NONE if value is None else f"{value:{sign}.{_decimals(point)}f}"


def _decimals(point: Point) -> int:
    return 3 if point.what.endswith(" M") else 2


def _measured(point: Point) -> str:
    std = point.measured_std
    spread = "" if std is None else f" ± {std:.{_decimals(point)}f}"
    return _number(point, point.measured) + spread


def _what(point: Point) -> str:
    return point.what + ("*" if point.chosen_on_test else "")


_COLUMNS: Final = [
    Column("data set", lambda point: point.dataset, is_number=False, is_key=True),
    Column("T", lambda point: str(point.num_steps), is_key=True),
    Column("what", _what, is_number=False, is_prose=True, is_key=True),
    Column("reported", lambda point: _number(point, point.reported)),
    Column("measured", _measured),
    Column("n", lambda point: str(point.seeds) if point.seeds else NONE),
    Column("gap", lambda point: _number(point, point.gap, is_signed=True)),
]

FORMATS: Final[dict[str, Callable[..., str | Group]]] = {
    "table": render,
    "json": to_json,
}
"""Values of ``--format``, and functions with the arguments of :func:`render`."""
