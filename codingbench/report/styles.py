"""How a coding styles: the same colour, symbol and dash wherever it is drawn.

The colours differ from each other by at least 15 units of CAM02-UCS as seen with normal, protan,
deutan and tritan vision (simulated after Machado et al., IEEE TVCG 15, 2009), and by a contrast of
at least 3:1 from both backgrounds of the page, white and dark (WCAG 2.2, 1.4.11);
``tests/test_report_looks.py`` measures it. More codings than colours are told apart by symbols and
dashes.
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
"""Of the points; one more than there are colours, so that the pairs run through all of them."""
DASHES: Final = ("solid", "dash", "dot", "dashdot")

BACKGROUNDS: Final = ("#ffffff", "#14171c")
"""Of the page in light and in dark; ``page.css`` has the same."""


@dataclass(frozen=True)
class Style:
    """How one coding is drawn."""

    colour: str
    symbol: str
    dash: str


def styles(encoders: Iterable[str]) -> dict[str, Style]:
    """A style for each coding, in the order of their names. Of 56 codings no two style alike.

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
