"""Exceptions for wrong input, and helpers that write one-line error messages.

The command line prints the message of a :class:`CodingbenchError` and exits with status 2, without
a traceback. A *cell* that fails raises none of them: it is recorded, and the other cells still run.
"""

import difflib
from collections.abc import Iterable


class CodingbenchError(Exception):
    """The request cannot be carried out. The message says why and what was expected."""


class SpecError(CodingbenchError):
    """A name, parameter or value in the request is unknown or not allowed."""


class DatasetError(CodingbenchError):
    """A data set was not found, or its files are broken."""


class StoreError(CodingbenchError):
    """The results folder cannot be read or written."""


def one_line(error: BaseException) -> str:
    """Return the type and message of an exception on one line of at most 500 characters."""
    return printable(" ".join(f"{type(error).__name__}: {error}".split()))[:500]


def printable(text: str) -> str:
    """Return the text on one line, with control characters written as escapes.

    >>> printable("a name\\nof two lines")
    'a name\\\\nof two lines'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint that names the nearest valid name, or nothing if none is near.

    >>> nearest("dirct", ["direct", "rate"]), nearest("x", ["direct"])
    ("; did you mean 'direct'?", '')
    """
    near = difflib.get_close_matches(name, sorted(valid), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """Return a one-line message: the unknown name, the nearest valid name and all valid names."""
    names = sorted(valid)
    known = f"known: {', '.join(names)}" if names else "there are none"
    return f"unknown {kind} {name!r}{nearest(name, names)} ({known})"
