"""Standard output and error that accept every character, whatever their encoding."""

import codecs
import sys
from typing import Final

HANDLER: Final = "codingbench.plain"
"""Name of the error handler that replaces what an encoding lacks."""

_PLAIN: Final = {
    **{"\N{MICRO SIGN}": "u", "\N{GREEK CAPITAL LETTER DELTA}": "d", "\N{PLUS-MINUS SIGN}": "~"},
    **{"\N{EM DASH}": "-", "\N{EN DASH}": "-", "\N{MINUS SIGN}": "-", "\N{MIDDLE DOT}": "."},
    **{"\N{HORIZONTAL ELLIPSIS}": ".", "\N{MULTIPLICATION SIGN}": "x"},
    **{"\N{GREATER-THAN OR EQUAL TO}": ">", "\N{LESS-THAN OR EQUAL TO}": "<"},
    **{"\N{NOT EQUAL TO}": "!", "\N{DAGGER}": "+", "\N{DOUBLE DAGGER}": "*"},
    **{"\N{SECTION SIGN}": "$", "\N{PILCROW SIGN}": "P"},
    **{"\N{BOX DRAWINGS LIGHT HORIZONTAL}": "-", "\N{BOX DRAWINGS HEAVY HORIZONTAL}": "-"},
}
"""One character for each, so that tables stay aligned."""


def replace_unknown_characters() -> None:
    """Let stdout and stderr replace what their encoding lacks, such as ``±`` in ASCII.

    Without this, one character of a table would end a command with a traceback when output is piped
    on Windows, or where the locale is ``C``.
    """
    codecs.register_error(HANDLER, _plain)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=HANDLER)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return the replacement of the characters that cannot be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in unknown), error.end
