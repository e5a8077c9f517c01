"""Fit tables into a terminal of any width: numbers are never cut, and names fold at their joints.

A table that is too narrow for all of its columns becomes several tables below each other. Each one
repeats the columns that name a row.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final, Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

Kind = Literal["number", "folding", "name", "prose"]
"""A number on one line, one that may fold at its spaces, a name, or words."""

_PROSE: Final = 20
"""Characters that a column of words has at least, where its texts are longer."""

_LEAST: Final = 4
"""Characters of a name or of words on a terminal that is too narrow for one number beside it."""


@dataclass(frozen=True)
class Shape:
    """The heading of a column, and how its texts may be folded."""

    heading: str
    kind: Kind
    is_key: bool
    """Repeated in each of several tables."""


@dataclass(frozen=True)
class Line:
    """The texts of one row, by column."""

    texts: Sequence[str]
    styles: Sequence[str]
    """The Rich style of each text."""
    begins_section: bool
    """Drawn below an empty line."""


@dataclass(frozen=True)
class Fitted:
    """A table that takes as many tables as the terminal is too narrow for."""

    shapes: Sequence[Shape]
    lines: Sequence[Line]
    gap: int
    """Number of spaces between columns."""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        places = range(len(self.shapes))
        return Measurement(1, self._total(places, self._most)).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, places in enumerate(self._blocks(options.max_width)):
            if number:
                yield Text()
            yield self._table(places, options.max_width)

    def _blocks(self, width: int) -> Iterator[list[int]]:
        """Yield the columns of each table: all, or the keys and as many others as fit."""
        every = range(len(self.shapes))
        keys = {place for place in every if self.shapes[place].is_key} or {0}
        chosen = set(keys)
        for place in every:
            if chosen > keys and self._total(sorted({*chosen, place}), self._least) > width:
                yield sorted(chosen)
                chosen = set(keys)
            chosen.add(place)
        yield sorted(chosen)

    def _table(self, places: Sequence[int], width: int) -> Table:
        table = Table(
            box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, self.gap - 1, 0, 0)
        )
        for place, chars in zip(places, self._widths(places, width), strict=True):
            is_right = self.shapes[place].kind in ("number", "folding")
            heading = Text(self.shapes[place].heading)
            table.add_column(
                heading, justify="right" if is_right else "left", width=chars, overflow="fold"
            )
        for line, below in pairwise([*self.lines, None]):
            texts = (self._cell(line, place) for place in places if line)
            table.add_row(*texts, end_section=below is not None and below.begins_section)
        return table

    def _cell(self, line: Line, place: int) -> "Text | FoldingName":
        text = line.texts[place]
        is_name = self.shapes[place].kind == "name"
        return FoldingName(text) if is_name else Text(text, line.styles[place])

    def _widths(self, places: Sequence[int], width: int) -> list[int]:
        """Return the width of each column: the widest are narrowed first, down to their least."""
        most, least = ([of[place] for place in places] for of in (self._most, self._least))
        is_number = [self.shapes[place].kind in ("number", "folding") for place in places]
        last = [
            have if fixed else min(have, _LEAST)
            for have, fixed in zip(least, is_number, strict=True)
        ]
        room = width - self.gap * (len(places) - 1)
        return narrowed(narrowed(most, least, room), last, room)

    def _total(self, places: Sequence[int], widths: Sequence[int]) -> int:
        return sum(widths[place] for place in places) + self.gap * (len(places) - 1)

    @cached_property
    def _most(self) -> list[int]:
        return [max(map(_widest_line, texts)) for texts in self._columns()]

    @cached_property
    def _least(self) -> list[int]:
        return [
            max(_least_width(text, shape.kind) for text in texts)
            for shape, texts in zip(self.shapes, self._columns(), strict=True)
        ]

    def _columns(self) -> Iterator[list[str]]:
        for place, shape in enumerate(self.shapes):
            yield [shape.heading, *(line.texts[place] for line in self.lines)]


def narrowed(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Return the widths that fill ``room``: the widest ones are narrowed first, the last of equals.

    >>> narrowed([12, 12, 5], [3, 9, 5], 21)
    [7, 9, 5]
    """
    found = list(widths)
    for _ in range(sum(found) - room):
        shrinking = [place for place, width in enumerate(found) if width > least[place]]
        if not shrinking:
            break
        found[max(shrinking, key=lambda place: (found[place], place))] -= 1
    return found


def _widest_line(text: str) -> int:
    return max(map(cell_len, text.splitlines()), default=0)


def _least_width(text: str, kind: Kind) -> int:
    if kind == "number":
        return _widest_line(text)
    if kind == "prose":
        return min(_PROSE, _widest_line(text))
    pieces = text.split() if kind == "folding" else _pieces(text, _EVERY_JOINT)
    return max(map(cell_len, pieces), default=0)


# --- names ----------------------------------------------------------------------------------------

_PART: Final = r"(?<= · )"
_JOINT: Final = rf"{_PART}|(?<=,)|(?<=[a-z]-)(?=[a-z])|(?<=\.)(?=[a-z])|(?=\[)"
_OR_VALUE: Final = rf"{_JOINT}|(?<==)"
_EVERY_JOINT: Final = rf"{_OR_VALUE}|(?<=_)|(?<= )"


@dataclass(frozen=True)
class FoldingName:
    """A name that a narrow column folds where its parts join, and never cuts."""

    name: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(self._widest(_EVERY_JOINT), len(self.name))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Parameters stay on one line with their values, and words whole, where there is room.
        joints = (joint for joint in _FOLDS if self._widest(joint) <= options.max_width)
        lines = [""]
        for part in _pieces(self.name, next(joints, _EVERY_JOINT)):
            if lines[-1] and cell_len((lines[-1] + part).rstrip()) > options.max_width:
                lines.append("")
            lines[-1] += part
        # Text, because Rich would read gac[heads=2] as markup.
        yield Text("\n".join(line.rstrip() for line in lines), overflow="fold")

    def _widest(self, joints: str) -> int:
        return max(cell_len(piece.rstrip()) for piece in _pieces(self.name, joints))


_FOLDS: Final = (_PART, _JOINT, _OR_VALUE, _EVERY_JOINT)


def _pieces(name: str, joints: str) -> list[str]:
    return re.split(joints, name)
