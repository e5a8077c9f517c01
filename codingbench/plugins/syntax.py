"""Hash the syntax of a Python file: what it does, without its words and its layout.

Comments, docstrings, blank lines, line breaks and quotes do not change the hash. All else does. The
form that is hashed is our own, because ``ast.dump`` writes the same code differently in different
versions of Python: 3.12 added the type parameters of functions and classes, and 3.13 leaves out
empty lists. Here every empty list and missing value is left out, in all versions.
"""

import ast
import hashlib
import tomllib
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

TABLE: Final = Path(__file__).with_name("shipped.toml")
"""The digests of shipped files from before syntax was hashed; ``earlier.py`` writes them."""

_LAYOUT: Final = frozenset({"kind", "type_comment", "type_ignores"})
"""Fields of nodes that say how code is written: the prefix of u"text", and comments on types."""


def digest(file: Path) -> bytes:
    """Return the SHA-256 of a file's syntax, and of its bytes if it is not readable Python.

    A shipped file whose syntax is that of the table ``shipped.toml`` has the digest from there, the
    one of its bytes in earlier versions, so that the keys of its cells stay the same.
    """
    content = file.read_bytes()
    if file.suffix != ".py":
        return hashlib.sha256(content).digest()
    own = syntax_digest(content)
    return _earlier().get(own, own)


@lru_cache(maxsize=256)
def syntax_digest(content: bytes) -> bytes:
    """Return the SHA-256 of the syntax of a Python file, given its bytes.

    Of bytes that are not Python, it is that of the bytes.
    """
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return hashlib.sha256(content).digest()  # the file is reported when it is imported
    return hashlib.sha256("".join(_pieces(tree)).encode()).digest()


@cache
def _earlier() -> dict[bytes, bytes]:
    table: dict[str, dict[str, str]] = tomllib.loads(TABLE.read_text())
    return {
        bytes.fromhex(entry["syntax"]): bytes.fromhex(entry["bytes"]) for entry in table.values()
    }


def _pieces(tree: ast.AST) -> Iterator[str]:
    """Yield the canonical text of a tree, piece by piece; no depth of a tree is too large."""
    left: list[Any] = [tree]
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, ast.Constant):
            yield f"{type(item.value).__name__}:{item.value!a} "
        elif isinstance(item, ast.AST):
            left += reversed(_node(item))
        elif isinstance(item, list):
            left += reversed(["[", *item, "]"])
        else:
            yield f"{item!a} "  # a name, a number, or None inside a list


def _node(node: ast.AST) -> list[Any]:
    """Return what a node is made of: its type, and its fields that are not empty."""
    parts: list[Any] = [f"{type(node).__name__}("]
    for name, value in ast.iter_fields(node):
        if name in _LAYOUT or value is None:
            continue
        if isinstance(value, str):
            value = f"{value!a} "
        elif isinstance(value, list):
            value = _entries(node, value)
        if value != []:
            parts += [f"{name}=", value]
    return [*parts, ")"]


def _entries(node: ast.AST, values: list[Any]) -> list[Any]:
    """Return the entries of a list without those that do nothing, each name as its text."""
    if isinstance(node, ast.JoinedStr):
        return _joined(values)
    return [
        f"{value!a} " if isinstance(value, str) else value
        for value in values
        if not _does_nothing(value)
    ]


def _does_nothing(value: Any) -> bool:
    """Return whether a statement is a text, such as a docstring, or ``pass``."""
    if isinstance(value, ast.Expr) and isinstance(value.value, ast.Constant):
        return isinstance(value.value.value, str)
    return isinstance(value, ast.Pass)


def _joined(values: list[Any]) -> list[Any]:
    """Return the parts of an f-string, neighbouring texts as one: versions split them elsewhere."""
    parts: list[Any] = []
    for value in values:
        if not isinstance(value, ast.Constant):
            parts.append(value)
        elif value.value and parts and isinstance(parts[-1], ast.Constant):
            parts[-1] = ast.Constant(str(parts[-1].value) + str(value.value))
        elif value.value:
            parts.append(value)
    return parts
