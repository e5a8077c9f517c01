"""Source code of classes defined in a notebook or a script, kept as plug-in files.

Such a class lives in the module ``__main__``, which no other process can import and whose file, if
there is one, holds much more than the class. :func:`keep` writes a module with the class and all
that it refers to: imports, constants, functions and base classes. From then on the plug-in is a
file like any other, with a hash that is the same in every session for the same source.
"""

import __future__

import ast
import hashlib
import inspect
import linecache
import os
import sys
from pathlib import Path
from types import FunctionType, ModuleType, UnionType
from typing import Any, Final, TypeVar

from codingbench.errors import SpecError
from codingbench.plugins.code import is_of_session, module_of
from codingbench.plugins.session import (
    SESSION,
    assignment,
    codes,
    compiled_functions,
    definition,
    globals_used,
    import_of,
    is_definition,
    literal,
    module_imports,
    session_texts,
    statement,
)

_HEADER: Final = '''"""{name}, defined in a notebook or script and kept by codingbench."""
{future}
KEPT_FROM_SESSION = True
'''
_GENERATED: Final = frozenset(
    {"__module__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__"}
)
"""Attributes of a class that Python sets, and that say nothing about its source."""


def keep(cls: type, folder: Path) -> Path:
    """Write the source of a class of ``__main__`` into ``folder``, and return the file's path.

    The name of the file, ``<class>-<hash>.py``, holds the first 12 hexadecimal digits of the
    SHA-256 of its content. A file that is already there is written again only if it was edited.

    Raises:
        SpecError: the source is not available, or it refers to an object that cannot be written
            down, such as a tensor, a lambda or a function made by another function.
        OSError: the folder cannot be written.
    """
    text = _ModuleText(cls).text()
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = folder / f"{cls.__name__}-{digest}.py"
    if not path.is_file() or path.read_bytes() != text.encode():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{path.name}-{os.getpid()}.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    _check_as_defined(cls, module_of(path))
    return path


class _ModuleText:
    """The text of a module with a class and all it needs, in the order in which it must be run."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.session = vars(sys.modules[SESSION])
        self.imports: set[str] = set()
        self.constants: dict[str, str] = {}
        self.definitions: dict[str, str] = {}
        self.has_future_annotations = False
        self._seen = {cls.__name__}
        self._define(cls.__name__, cls)

    def text(self) -> str:
        """Return the module as it is written to the file."""
        future = "\nfrom __future__ import annotations\n" if self.has_future_annotations else ""
        parts = [
            _HEADER.format(name=self.cls.__name__, future=future),
            "\n".join(sorted(self.imports)),
            "\n".join(self.constants[name] for name in sorted(self.constants)),
            *self.definitions.values(),
        ]
        return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"

    def _add(self, name: str, tree: ast.AST) -> None:
        """Add what a global name of the session stands for; ``tree`` uses it."""
        if name.startswith("__") or name not in self.session:
            return
        value = self.session[name]
        if isinstance(value, ModuleType):
            self.imports |= set(module_imports(name, value, tree))
        if name in self._seen or isinstance(value, ModuleType):
            return
        self._seen.add(name)
        if getattr(value, "__module__", None) == SESSION and is_definition(value):
            self._define(name, value)
        elif (written := literal(value)) is not None:
            self.constants[name] = f"{name} = {written}"
        elif found := import_of(name, value):
            self.imports.add(found)
        elif isinstance(value, type | UnionType | TypeVar) or hasattr(value, "__origin__"):
            self._define_alias(name)
        else:
            self._refuse(name, value)

    def _define(self, name: str, thing: Any) -> None:
        if "<lambda>" in thing.__qualname__ or "<locals>" in thing.__qualname__:
            self._refuse(name, thing)
        own_name = thing.__name__
        if own_name != name:
            self._add(own_name, ast.Pass())
            if self.session.get(own_name) is not thing:
                self._refuse(name, thing)
            self.definitions[name] = f"{name} = {own_name}"
            return
        self._check_bases(thing)
        self._write(name, definition(thing) or self._no_source(name))
        self._check_codes(thing)

    def _define_alias(self, name: str) -> None:
        """Add a type alias, such as ``Images = Float[Tensor, "batch channel row column"]``."""
        found = (assignment(text, name) for text in session_texts())
        self._write(name, next(filter(None, found), None) or self._no_source(name))

    def _write(self, name: str, text: str) -> None:
        tree = ast.parse(text)
        for used in sorted(globals_used(text, tree)):
            self._add(used, tree)
        self.definitions[name] = text

    def _check_bases(self, thing: Any) -> None:
        for base in thing.__bases__ if inspect.isclass(thing) else ():
            if is_of_session(base) and self.session.get(base.__name__) is not base:
                raise SpecError(
                    f"{thing.__name__} derives from an earlier version of {base.__name__}: "
                    f"run the code that defines {thing.__name__} again"
                )

    def _check_codes(self, thing: Any) -> None:
        """Refuse functions that were put into a class later, and scripts edited since they ran."""
        text = self.definitions[thing.__name__]
        for code in codes(thing):
            lines = linecache.getlines(code.co_filename)
            if not lines:
                continue  # generated, as the methods of a dataclass are
            if statement("".join(lines), thing.__name__, code.co_firstlineno) != text:
                raise SpecError(
                    f"{self._cannot()}: {code.co_qualname} is not defined where {thing.__name__} is"
                )
            is_script = code.co_filename == self.session.get("__file__")
            if is_script and code not in compiled_functions(lines):
                raise SpecError(
                    f"{self._cannot()}: {code.co_filename} has changed since it was started"
                )
            self.has_future_annotations |= bool(code.co_flags & _FUTURE_ANNOTATIONS)

    def _no_source(self, name: str) -> str:
        raise SpecError(
            f"{self._cannot()}: the source of {name!r} is not available; "
            "expected a class of a notebook, a script or a module"
        )

    def _refuse(self, name: str, value: object) -> None:
        if name == self.cls.__name__:
            raise SpecError(f"{self._cannot()}: expected a class that no function defines")
        if isinstance(value, FunctionType):
            is_lambda = value.__name__ == "<lambda>"
            what = "a lambda" if is_lambda else "a function defined inside another function"
            expected = "expected a function defined by def outside of other functions"
        else:
            what = f"an object of type {type(value).__name__}"
            expected = "expected a module, class, function, number, text or collection of these"
        raise SpecError(f"{self._cannot()}: it refers to {name!r}, {what}; {expected}")

    def _cannot(self) -> str:
        return f"{self.cls.__name__} cannot be kept as a plug-in"


# --- the kept class -------------------------------------------------------------------------------


def _check_as_defined(cls: type, module: ModuleType) -> None:
    """Refuse a class of the session whose attributes are not those that its source gives it."""
    session = vars(sys.modules[SESSION])
    for name, kept in vars(module).items():
        if not inspect.isclass(kept) or kept.__module__ != module.__name__:
            continue
        live = cls if name == cls.__name__ else session[name]
        if changed := _difference(live, kept):
            raise SpecError(
                f"{cls.__name__} cannot be kept as a plug-in: {live.__name__}.{changed} is not "
                "what its source says; run the code that defines it again"
            )


def _difference(live: type, kept: type) -> str | None:
    """Return the name of an attribute in which two versions of a class differ."""
    for name in sorted({*vars(live), *vars(kept)} - _GENERATED):
        one, other = vars(live).get(name, _ABSENT), vars(kept).get(name, _ABSENT)
        if (one is _ABSENT) != (other is _ABSENT) or literal(one) != literal(other):
            return name
    return None


_ABSENT: Final = object()
_FUTURE_ANNOTATIONS: Final = __future__.annotations.compiler_flag
