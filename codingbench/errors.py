"""What goes wrong through the user's input, as one line each.

The command line prints the message of a :class:`CodingbenchError` and leaves with status 2,
without a traceback. A failing *cell* is not such an error: it is recorded and the grid goes on.
"""

import difflib
from collections.abc import Iterable


class CodingbenchError(Exception):
    """The request cannot be carried out; the message says why and what was expected."""


class SpecError(CodingbenchError):
    """A name, parameter or value in the request is not one that exists."""


class DatasetError(CodingbenchError):
    """A data set was not found, or what was found is broken."""


class StoreError(CodingbenchError):
    """The results folder cannot be read or written."""


def one_line(error: BaseException) -> str:
    """Kind and message of any exception, on one line of at most 500 characters."""
    return printable(" ".join(f"{type(error).__name__}: {error}".split()))[:500]


def printable(text: str) -> str:
    """The text on one line, with escapes for what a terminal would obey instead of printing.

    >>> printable("a name\\nof two lines")
    'a name\\\\nof two lines'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """One line: the unknown name, the nearest valid one if any is near, and all valid ones."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (known: {', '.join(names) or 'none'})"
