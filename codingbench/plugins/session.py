"""Plug-ins defined in a notebook or script: finding their source and saving it as a file."""

import ast
import contextlib
import inspect
import linecache
import symtable
import sys
import textwrap
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

SESSION: Final = "__main__"
"""The module of everything that a notebook or a script defines."""


# --- names ----------------------------------------------------------------------------------------


def globals_used(text: str, tree: ast.AST) -> set[str]:
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


def module_imports(name: str, module: ModuleType, tree: ast.AST) -> Iterator[str]:
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


def import_of(name: str, value: object) -> str | None:
    """Return the statement that imports an object under a name, or None if there is none."""
    module = getattr(value, "__module__", None)
    for attribute in ("__qualname__", "__name__", "_name"):
        original = getattr(value, attribute, None)
        if _is_at(module, original, value):
            return _from_import(str(module), str(original), name)
    for text in session_texts():
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


def literal(value: object) -> str | None:
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
        pairs = [(literal(key), literal(entry)) for key, entry in value.items()]
        if any(None in pair for pair in pairs):
            return None
        return "{" + ", ".join(f"{key}: {entry}" for key, entry in pairs) + "}"
    if type(value) in (tuple, list, set, frozenset):
        return _collection(value)  # type: ignore[arg-type]
    return None


def _collection(value: tuple[Any, ...] | list[Any] | set[Any] | frozenset[Any]) -> str | None:
    written = [literal(entry) for entry in value]
    entries = [entry for entry in written if entry is not None]
    if len(entries) < len(written):
        return None
    if isinstance(value, tuple):
        return "(" + ", ".join(entries) + ("," if len(entries) == 1 else "") + ")"
    if isinstance(value, list):
        return "[" + ", ".join(entries) + "]"
    return f"{type(value).__name__}([{', '.join(sorted(entries))}])"


# --- definitions ----------------------------------------------------------------------------------


def is_definition(thing: object) -> bool:
    return inspect.isclass(thing) or isinstance(_function(thing), FunctionType)


def _function(thing: Any) -> object:
    """Return the function inside a method, property or decorated function."""
    if isinstance(thing, property):
        thing = thing.fget
    if isinstance(thing, classmethod | staticmethod):
        thing = thing.__func__
    return inspect.unwrap(thing) if callable(thing) else thing


def definition(thing: Any) -> str | None:
    """Return the source of a class or function with its decorators, or None if it is not found."""
    for code in codes(thing):
        lines = linecache.getlines(code.co_filename)
        if text := statement("".join(lines), thing.__name__, code.co_firstlineno):
            return text
    if inspect.isclass(thing):  # one without methods, so that no code names its file
        found = (statement(text, thing.__name__) for text in session_texts())
        return next(filter(None, found), None)
    return None


def codes(thing: Any) -> Iterator[CodeType]:
    """Yield the code of a function, or of the methods that a class defines."""
    inside = vars(thing).values() if inspect.isclass(thing) else [thing]
    for function in map(_function, inside):
        if isinstance(function, FunctionType) and function.__module__ == thing.__module__:
            yield function.__code__


def statement(text: str, name: str, line: int | None = None) -> str | None:
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


def assignment(text: str, name: str) -> str | None:
    """Return the last assignment to a name outside of functions and classes."""
    for node in reversed(_parsed(text).body):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.get_source_segment(text, node)
    return None


def session_texts() -> Iterator[str]:
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


def compiled_functions(lines: list[str]) -> set[CodeType]:
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
