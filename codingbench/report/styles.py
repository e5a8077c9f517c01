"""The style of each coding: the same colour, symbol and dash in every figure.

Any two colours differ by at least 15 units of CAM02-UCS in normal, protan, deutan and tritan vision
(simulated after Machado et al., IEEE TVCG 15, 2009). Each has a contrast of at least 3:1 to both
backgrounds of the page, white and dark (WCAG 2.2, 1.4.11). ``tests/test_report_styles.py`` measures
both. Codings beyond the number of colours differ in symbol and dash.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

COLOURS: Final = ("#4466aa", "#aa4400", "#009e90", "#ff4488", "#bb8800", "#aa77ff", "#666655")
SYMBOLS: Final = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "x",
    "star",
    "cross",
    "triangle-down",
)
"""Symbols of the points, one more than colours: together they form 56 different pairs."""
DASHES: Final = ("solid", "dash", "dot", "dashdot")

BACKGROUNDS: Final = ("#ffffff", "#14171c")
"""Backgrounds of the page in light and dark mode; ``page.css`` repeats them."""


@dataclass(frozen=True)
class Style:
    """The style of one coding."""

    colour: str
    symbol: str
    dash: str


def styles(encoders: Iterable[str]) -> dict[str, Style]:
    """Return a style for each coding, in the order of their names; 56 styles are different.

    >>> found = styles(["rate", "direct"])
    >>> found["direct"].colour, found["rate"].symbol
    ('#4466aa', 'square')
    """
    return {
        encoder: Style(
            COLOURS[place % len(COLOURS)],
            SYMBOLS[place % len(SYMBOLS)],
            DASHES[place // len(COLOURS) % len(DASHES)],
        )
        for place, encoder in enumerate(sorted(set(encoders)))
    }
