"""Check the types of the arguments of the API, so that a wrong one is an error of one line."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, Final, ParamSpec, TypeVar, get_args, get_origin

from codingbench.errors import SpecError

P = ParamSpec("P")
R = TypeVar("R")

_EXPECTED: Final[dict[frozenset[type], str]] = {
    frozenset({bool}): "True or False",
    frozenset({int}): "a whole number",
    frozenset({float}): "a number",
    frozenset({str}): "text",
    frozenset({float, str}): "seconds or text",
    frozenset({str, Path}): "a path",
    frozenset({str, type}): "a name or a class",
    frozenset({str, Sequence}): "text or a list of texts",
    frozenset({int, Sequence}): "whole numbers",
    frozenset({int, str, Sequence}): "whole numbers",
    frozenset({Mapping}): "a dictionary",
}
"""The types that an annotation joins, and their description in an error."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function refuse arguments whose type is not that of its annotations.

    Parameters with annotations that are not in ``_EXPECTED``, and those of ``*args``, are left to
    the function itself.

    Raises:
        SpecError: an argument has another type; the message names it.
    """
    signature = inspect.signature(function)
    types = {
        name: _types(parameter.annotation)
        for name, parameter in signature.parameters.items()
        if parameter.kind is not parameter.VAR_POSITIONAL
    }
    expected = {name: _EXPECTED.get(kinds - {NoneType}) for name, kinds in types.items()}

    @wraps(function)
    def checking(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if (text := expected.get(name)) and not _is_one_of(types[name], value):
                raise SpecError(f"{name} expects {text}, got {described(value)}")
        return function(*args, **kwargs)

    return checking


def described(value: object) -> str:
    """Return a number or text as it is written, and anything else by its type."""
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    return f"the class {value.__name__}" if inspect.isclass(value) else f"a {type(value).__name__}"


def _types(annotation: Any) -> frozenset[type]:
    """Return the classes that an annotation joins: ``{int, Sequence}`` of either of the two."""
    origin = get_origin(annotation)
    if origin is None or (inspect.isclass(origin) and issubclass(origin, Sequence | Mapping)):
        return frozenset({origin or annotation})
    return frozenset().union(*map(_types, get_args(annotation)))


def _is_one_of(kinds: frozenset[type], value: Any) -> bool:
    """Return whether a value has one of the types; values of NumPy count as those of Python."""
    if Sequence in kinds and hasattr(value, "tolist"):
        value = value.tolist()
    if Sequence in kinds and isinstance(value, list | tuple) and int not in kinds:
        return all(isinstance(entry, str) for entry in value)
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, str):
        return str in kinds
    if isinstance(value, Integral):
        return bool(kinds & {int, float})
    if isinstance(value, Real):
        return float in kinds
    return isinstance(value, tuple(kinds - {int, float}))
