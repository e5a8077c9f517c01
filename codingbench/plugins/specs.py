"""Read and write lists of plug-ins: ``name[param=value,...]``, separated by commas.

A comma inside brackets separates parameters, a comma outside separates list entries:
``gac,latency[scale=log]`` are two codings. ``file.py:Class`` is a plug-in in a file,
``package.module:Class`` one in an importable module. A parameter with several values, separated
by ``|``, gives one entry for each: ``rate[gain=0.5|1|2]`` are three codings. A value cannot contain
any of ``[ ] , |``.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from codingbench.errors import SpecError

Value = bool | int | float | str

ALTERNATIVES: Final = "|"
"""Separator of the values of a parameter; each value gives an entry."""

MOST_ENTRIES: Final = 1000
"""Largest number of entries that one ``name[param=a|b,...]`` can expand to."""


@dataclass(frozen=True)
class Spec:
    """A plug-in's name and its parameters, both as the text that the user wrote."""

    name: str
    params: tuple[tuple[str, str], ...] = ()


def split_list(text: str) -> list[str]:
    """Split a list at the commas outside brackets.

    >>> split_list("gac,latency[scale=log,threshold=0.1]")
    ['gac', 'latency[scale=log,threshold=0.1]']

    Raises:
        SpecError: an entry is empty, or brackets do not match.
    """
    entries, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if depth not in (0, 1):
            raise SpecError(f"brackets do not match in {text!r}: expected name[param=value,...]")
        if letter == "," and depth == 0:
            entries.append(text[start:index].strip())
            start = index + 1
    entries.append(text[start:].strip())
    if depth:
        raise SpecError(f"brackets do not match in {text!r}: expected name[param=value,...]")
    if not all(entries):
        raise SpecError(f"empty entry in the list {text!r}: expected names separated by commas")
    return entries


def plain_name(label: str) -> str:
    """Return a label without its parameters.

    >>> plain_name("latency[scale=log]")
    'latency'
    """
    return label.partition("[")[0]


def parse_spec(text: str) -> Spec:
    """Read ``name`` or ``name[param=value,...]``.

    >>> parse_spec("latency[scale=log]")
    Spec(name='latency', params=(('scale', 'log'),))

    Raises:
        SpecError: the text has another form, sets a parameter twice, or has control characters.
    """
    if not text.strip().isprintable():
        raise SpecError(f"{text!r} has control characters, expected name[param=value,...]")
    name, bracket, rest = text.strip().partition("[")
    if not bracket:
        return Spec(name)
    if not name.strip() or not rest.endswith("]") or not rest[:-1].strip():
        raise SpecError(f"cannot read {text!r}: expected name[param=value,...]")
    params: dict[str, str] = {}
    for pair in split_list(rest[:-1]):
        param, equals, value = (part.strip() for part in pair.partition("="))
        if not (param and equals and value):
            raise SpecError(f"cannot read {pair!r} in {text!r}: expected param=value")
        if param in params:
            raise SpecError(f"{text!r} sets {param!r} twice")
        params[param] = value
    return Spec(name.strip(), tuple(params.items()))


def alternatives(text: str) -> list[str]:
    """Expand ``name[param=a|b,...]`` to all combinations, the last parameter varying fastest.

    >>> alternatives("latency[scale=linear|log,threshold=0.1]")
    ['latency[scale=linear,threshold=0.1]', 'latency[scale=log,threshold=0.1]']

    Raises:
        SpecError: the text cannot be read, a value is empty, or there are more than
            :data:`MOST_ENTRIES` entries.
    """
    spec = parse_spec(text)
    values = {param: _values(spec, param, given) for param, given in spec.params}
    count = math.prod(map(len, values.values()))
    if count > MOST_ENTRIES:
        reason = f"expands to {count:,} entries, expected at most {MOST_ENTRIES:,}"
        raise SpecError(f"{spec.name}[...] {reason}")
    combinations = itertools.product(*values.values())
    return [format_spec(spec.name, dict(zip(values, one, strict=True))) for one in combinations]


def _values(spec: Spec, param: str, given: str) -> list[str]:
    values = [value.strip() for value in given.split(ALTERNATIVES)]
    if not all(values):
        raise SpecError(f"{spec.name}[{param}] has an empty value in {given!r}: expected a|b|...")
    return values


def format_spec(name: str, params: Mapping[str, Value]) -> str:
    """Return the canonical text of a plug-in, its parameters sorted by name.

    >>> format_spec("direct", {"spiking": False})
    'direct[spiking=false]'
    """
    if not params:
        return name
    inside = ",".join(f"{key}={_format_value(value)}" for key, value in sorted(params.items()))
    return f"{name}[{inside}]"


def _format_value(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
