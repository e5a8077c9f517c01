"""The result of a reproduction, as a table or as JSON."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from codingbench.literature.reproduction import Point, Protocol

_HEADINGS: Final = ("data set", "T", "what", "reported", "measured", "n", "gap")


def render(
    protocol: Protocol,
    points: Sequence[Point],
    departures: Sequence[str],
    signs: Sequence[str] = (),
) -> Group:
    """Return the points as a table, with the departures from the paper below it.

    ``signs`` are lines about cells that may have learned nothing.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in _HEADINGS:
        is_name = heading in ("data set", "what")
        table.add_column(heading, justify="left" if is_name else "right", overflow="fold")
    place = None
    for point in points:
        if place not in (None, (point.dataset, point.num_steps)):
            table.add_section()
        place = point.dataset, point.num_steps
        table.add_row(*map(Text, _texts(point)))
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


def _texts(point: Point) -> tuple[str, ...]:
    decimals = 3 if point.what.endswith(" M") else 2
    is_difference = point.what.endswith("points")

    def number(value: float | None, is_signed: bool = is_difference) -> str:
        return "—" if value is None else f"{value:{'+' if is_signed else ''}.{decimals}f}"

    spread = "" if point.measured_std is None else f" ± {point.measured_std:.{decimals}f}"
    return (
        point.dataset,
        str(point.num_steps),
        point.what + ("*" if point.chosen_on_test else ""),
        number(point.reported),
        number(point.measured) + spread,
        str(point.seeds) if point.seeds else "—",
        number(point.gap, is_signed=True),
    )


FORMATS: Final[dict[str, Callable[..., str | Group]]] = {
    "table": render,
    "json": to_json,
}
"""Values of ``--format``, and functions with the arguments of :func:`render`."""
