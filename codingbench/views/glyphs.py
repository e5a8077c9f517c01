"""Draw numbers as characters: spark lines, heat strips, patterns over time."""

from collections.abc import Sequence
from typing import Final

_BARS: Final = "▁▂▃▄▅▆▇█"
_SHADES: Final = " ░▒▓█"


def spark(values: Sequence[float | None], top: float | None = None) -> str:
    """Return a bar per value: the full bar at ``top`` (default: the largest), a dot for 0 or None.

    >>> spark([0.0, 1.0, 4.0, 8.0])
    '·▁▄█'
    """
    return _drawn(_BARS, "·", values, top)


def heat(values: Sequence[float | None], top: float | None = None) -> str:
    """Return a shade per value: the darkest at ``top`` (default: the largest), blank for 0 or None.

    >>> heat([0.0, 1.0, 2.0, 4.0])
    ' ░▒█'
    """
    return _drawn(_SHADES[1:], _SHADES[0], values, top)


def beads(pattern: str) -> str:
    """Return a pattern of 0 and 1 as small squares.

    >>> beads("0100")
    '▫▪▫▫'
    """
    return pattern.replace("0", "▫").replace("1", "▪")


def _drawn(levels: str, nothing: str, values: Sequence[float | None], top: float | None) -> str:
    known = [value for value in values if value is not None]
    highest = max(known, default=0.0) if top is None else top

    def glyph(value: float | None) -> str:
        if value is None or value <= 0 or highest <= 0:
            return nothing
        # a small value still has the lowest level, so that it differs from 0
        return levels[min(len(levels), max(1, round(len(levels) * value / highest))) - 1]

    return "".join(map(glyph, values))
