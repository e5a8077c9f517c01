"""One line about everything that is wrong with the settings in a file."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from codingbench.recipes.chain import EXTENDS

Location = tuple[int | str, ...]
Sections = dict[Location, type]
"""Place of each section in the file -> the dataclass of its settings. Where the value of ``name``
decides about the class, that value is the last part of the place."""

TOGETHER: Final = "together"
"""Type of errors about several settings of a section; their message names the settings."""

_MISSING: Final = ("missing", "union_tag_not_found")
_LONGEST: Final = 80  # characters of a value that are shown
_WORDS: Final = {
    "Input should be": "must be",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}


FileOf = Callable[[Sequence[int | str], bool], str]
"""Takes a place and whether it is missing; returns in which file, as an addition to a sentence."""


def explain(error: ValidationError, sections: Sections, file_of: FileOf) -> str:
    """Return all errors on one line, each with the setting, what was expected and what was given.

    A setting is written with its section, as in ``optimizer.lr``. For an unknown setting or choice
    the nearest valid one is suggested. ``file_of`` adds in which file each setting stands.
    """
    return "; ".join(
        _sentence(details, sections)
        + file_of(_keys(details["loc"], sections), details["type"] in _MISSING)
        for details in error.errors(include_url=False)
    )


def _sentence(details: ErrorDetails, sections: Sections) -> str:
    place, kind, given = details["loc"], details["type"], _shown(details["input"])
    setting = _written(place, sections)
    match kind:
        case "unexpected_keyword_argument":
            fields = [*sections[place[:-1]].__annotations__, *([] if place[1:] else [EXTENDS])]
            known = f" (known: {', '.join(sorted(fields))})"
            return f"unknown setting {_shown(setting)}{_nearest(str(place[-1]), fields) or known}"
        case "too_long" | "tuple_type":
            return f"{setting} must be two numbers, got {given}"
        case "missing" if isinstance(place[-1], int):
            return f"{_written(place[:-1], sections)} must be two numbers, got {given}"
        case "missing":
            return f"{setting} is missing"
        case "union_tag_not_found":
            return f"{setting}.name is missing"
        case "union_tag_invalid":
            tag, valid = details["ctx"]["tag"], _quoted(details["ctx"]["expected_tags"])
            return (
                f"{setting}.name must be {_either(valid)}, got {_shown(tag)}{_nearest(tag, valid)}"
            )
        case "literal_error":
            valid = _quoted(details["ctx"]["expected"])
            near = _nearest(str(details["input"]), valid)
            return f"{setting} must be {_either(valid)}, got {given}{near}"
        case "dataclass_type" | "model_attributes_type":
            return f"{setting} must be a table of settings, got {given}"
        case _ if kind == TOGETHER:
            return f"{setting}: {details['msg']}"
    message = details["msg"]
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    return f"{setting} {message}, got {given}"


def _written(place: Location, sections: Sections) -> str:
    """Return a place as ``section.setting``, or ``section.setting[0]`` for part of a list."""
    parts = _keys(place, sections)
    written = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return written.removeprefix(".")


def _keys(place: Location, sections: Sections) -> list[int | str]:
    """Return a place without the names of classes that are part of it."""
    return [
        part
        for index, part in enumerate(place)
        if place[: index + 1] not in sections or place[:index] in sections
    ]


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _either(names: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(map(repr, names[:-1])), repr(names[-1])]))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _nearest(name: str, valid: Iterable[str]) -> str:
    """Return a suggestion in brackets: the nearest valid name, or nothing if none is near."""
    near = difflib.get_close_matches(name, sorted(valid), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
