"""Source code of classes defined in a notebook or a script, kept as plug-in files.

Such a class lives in the module ``__main__``, which no other process can import and whose file, if
there is one, holds much more than the class. :func:`keep` writes a module with the class and all
that it refers to: imports, constants, functions and base classes. From then on the plug-in is a
file like any other, with a hash that is the same in every session for the same source.
"""

import __future__

import ast
import contextlib
import hashlib
import inspect
import linecache
import os
import symtable
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType, UnionType
from typing import Any, Final, TypeVar

from codingbench.errors import SpecError
from codingbench.plugins.code import is_of_session, module_of

SESSION: Final = "__main__"
"""The module of everything that a notebook or a script defines."""

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
    SHA-256 of its content. A file that is already there is not written again.

    Raises:
        SpecError: the source is not available, or it refers to an object that cannot be written
            down, such as a tensor, a lambda or a function made by another function.
        OSError: the folder cannot be written.
    """
    text = _ModuleText(cls).text()
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = folder / f"{cls.__name__}-{digest}.py"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{path.name}-{os.getpid()}.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    _check_as_defined(cls, module_of(path))
    return path


class _ModuleText:
    """Collects what a class needs, every definition after those that it refers to."""

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
            self.imports |= set(_module_imports(name, value, tree))
        if name in self._seen or isinstance(value, ModuleType):
            return
        self._seen.add(name)
        if getattr(value, "__module__", None) == SESSION and _is_definition(value):
            self._define(name, value)
        elif (literal := _literal(value)) is not None:
            self.constants[name] = f"{name} = {literal}"
        elif statement := _import_of(name, value):
            self.imports.add(statement)
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
        self._write(name, _definition(thing) or self._no_source(name))
        self._check_codes(thing)

    def _define_alias(self, name: str) -> None:
        """Add a type alias, such as ``Images = Float[Tensor, "batch channel row column"]``."""
        found = (_assignment(text, name) for text in _session_texts())
        self._write(name, next(filter(None, found), None) or self._no_source(name))

    def _write(self, name: str, text: str) -> None:
        tree = ast.parse(text)
        for used in sorted(_globals_used(text, tree)):
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
        for code in _codes(thing):
            lines = linecache.getlines(code.co_filename)
            if not lines:
                continue  # generated, as the methods of a dataclass are
            if _statement("".join(lines), thing.__name__, code.co_firstlineno) != text:
                raise SpecError(
                    f"{self._cannot()}: {code.co_qualname} is not defined where {thing.__name__} is"
                )
            if code.co_filename == self.session.get("__file__") and code not in _compiled(lines):
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
            expected = (
                "expected modules, classes, functions, numbers, texts and collections of them"
            )
        raise SpecError(f"{self._cannot()}: it refers to {name!r}, {what}; {expected}")

    def _cannot(self) -> str:
        return f"{self.cls.__name__} cannot be kept as a plug-in"


# --- names ----------------------------------------------------------------------------------------


def _globals_used(text: str, tree: ast.AST) -> set[str]:
    """Return the names that the code looks up outside of itself, annotations included."""

    def visit(table: symtable.SymbolTable) -> Iterator[str]:
        is_module = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (is_module or symbol.is_global()):
                yield symbol.get_name()
        for child in table.get_children():
            yield from visit(child)

    return {*visit(symtable.symtable(text, "<plug-in>", "exec")), *_annotation_names(tree)}


def _annotation_names(tree: ast.AST) -> Iterator[str]:
    """Yield the names in annotations, which may be written as text."""
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            annotation = getattr(node, field, None)
            if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
                with contextlib.suppress(SyntaxError):
                    annotation = ast.parse(annotation.value, mode="eval")
            if isinstance(annotation, ast.AST):
                yield from (sub.id for sub in ast.walk(annotation) if isinstance(sub, ast.Name))


def _module_imports(name: str, module: ModuleType, tree: ast.AST) -> Iterator[str]:
    """Yield the imports of a module, and of those below it that ``tree`` reaches by attributes."""
    full = module.__name__
    package, _, last = full.rpartition(".")
    if full == name:
        yield f"import {full}"
    elif package and last == name:
        yield f"from {package} import {name}"
    else:
        yield f"import {full} as {name}"
    for node in ast.walk(tree):
        chain = _attributes(node)
        if chain and chain[0] == name:
            paths = (".".join([full, *chain[1:end]]) for end in range(len(chain), 1, -1))
            if found := next((path for path in paths if path in sys.modules), None):
                yield f"import {found}"


def _attributes(node: ast.AST) -> list[str]:
    """Return ``["a", "b", "c"]`` for ``a.b.c``, and an empty list for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (before := _attributes(node.value)):
        return [*before, node.attr]
    return []


def _import_of(name: str, value: object) -> str | None:
    """Return the statement that imports an object under a name, or None if there is none."""
    module = getattr(value, "__module__", None)
    for attribute in ("__qualname__", "__name__", "_name"):
        original = getattr(value, attribute, None)
        if _is_at(module, original, value):
            return _from_import(str(module), str(original), name)
    for text in _session_texts():
        for node in ast.walk(_parsed(text)):
            if isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    is_it = (alias.asname or alias.name) == name
                    if is_it and _is_at(node.module, alias.name, value):
                        return _from_import(str(node.module), alias.name, name)
    return None


def _from_import(module: str, original: str, name: str) -> str:
    return f"from {module} import {original}" + (f" as {name}" if name != original else "")


def _is_at(module: object, name: object, value: object) -> bool:
    """Return whether an imported module has the value under that name."""
    if not isinstance(module, str) or not isinstance(name, str) or module == SESSION:
        return False
    return getattr(sys.modules.get(module), name, None) is value


# --- values ---------------------------------------------------------------------------------------


def _literal(value: object) -> str | None:
    """Return the value as Python code, or None if it is not a number, text or collection of them.

    Sets are sorted, so that equal values are written alike in every process.
    """
    if value is None or value is ... or type(value) in (bool, str, bytes):
        return repr(value) if value is not ... else "..."
    if isinstance(value, float):
        number = float(value)
        return repr(number) if abs(number) < float("inf") else f'float("{number}")'
    if type(value) in (int, complex):
        return repr(value)
    if type(value) is dict:
        pairs = [(_literal(key), _literal(entry)) for key, entry in value.items()]
        if any(None in pair for pair in pairs):
            return None
        return "{" + ", ".join(f"{key}: {entry}" for key, entry in pairs) + "}"
    if type(value) in (tuple, list, set, frozenset):
        return _collection(value)  # type: ignore[arg-type]
    return None


def _collection(value: tuple[Any, ...] | list[Any] | set[Any] | frozenset[Any]) -> str | None:
    written = [_literal(entry) for entry in value]
    entries = [entry for entry in written if entry is not None]
    if len(entries) < len(written):
        return None
    if isinstance(value, tuple):
        return "(" + ", ".join(entries) + ("," if len(entries) == 1 else "") + ")"
    if isinstance(value, list):
        return "[" + ", ".join(entries) + "]"
    return f"{type(value).__name__}([{', '.join(sorted(entries))}])"


# --- definitions ----------------------------------------------------------------------------------


def _is_definition(thing: object) -> bool:
    return inspect.isclass(thing) or isinstance(_function(thing), FunctionType)


def _function(thing: Any) -> object:
    """Return the function inside a method, property or decorated function."""
    if isinstance(thing, property):
        thing = thing.fget
    if isinstance(thing, classmethod | staticmethod):
        thing = thing.__func__
    return inspect.unwrap(thing) if callable(thing) else thing


def _definition(thing: Any) -> str | None:
    """Return the source of a class or function with its decorators, or None if it is not found."""
    for code in _codes(thing):
        lines = linecache.getlines(code.co_filename)
        if text := _statement("".join(lines), thing.__name__, code.co_firstlineno):
            return text
    if inspect.isclass(thing):  # one without methods, so that no code names its file
        found = (_statement(text, thing.__name__) for text in _session_texts())
        return next(filter(None, found), None)
    return None


def _codes(thing: Any) -> Iterator[CodeType]:
    """Yield the code of a function, or of the methods that a class defines."""
    inside = vars(thing).values() if inspect.isclass(thing) else [thing]
    for function in map(_function, inside):
        if isinstance(function, FunctionType) and function.__module__ == thing.__module__:
            yield function.__code__


def _statement(text: str, name: str, line: int | None = None) -> str | None:
    """Return the last definition of a class or function in the text, or the one around a line."""
    lines = text.splitlines()
    for node in reversed(list(ast.walk(_parsed(text)))):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        last = node.end_lineno or first
        if node.name == name and (line is None or first <= line <= last):
            return textwrap.dedent("\n".join(lines[first - 1 : last]))
    return None


def _assignment(text: str, name: str) -> str | None:
    """Return the last assignment to a name outside of functions and classes."""
    for node in reversed(_parsed(text).body):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.get_source_segment(text, node)
    return None


def _session_texts() -> Iterator[str]:
    """Yield the cells of the notebook that were run, the last one first, or the script."""
    session = sys.modules[SESSION]
    yield from (cell for cell in reversed(getattr(session, "In", [])) if isinstance(cell, str))
    if file := getattr(session, "__file__", None):
        yield "".join(linecache.getlines(file))


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def _compiled(lines: list[str]) -> set[CodeType]:
    """Return the code objects of all functions in a file."""

    def visit(code: CodeType) -> Iterator[CodeType]:
        yield code
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from visit(constant)

    try:
        return {*visit(compile("".join(lines), "<script>", "exec", dont_inherit=True))}
    except SyntaxError:
        return set()


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
        if (one is _ABSENT) != (other is _ABSENT) or _literal(one) != _literal(other):
            return name
    return None


_ABSENT: Final = object()
_FUTURE_ANNOTATIONS: Final = __future__.annotations.compiler_flag
