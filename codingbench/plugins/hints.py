"""Error messages for a plug-in that is not known, with a hint at a file of the current folder."""

import ast
import os
from collections.abc import Iterable
from pathlib import Path

from codingbench.errors import unknown
from codingbench.plugins.trust import places_of

_REGISTER = ("register_encoder", "register_backbone", "register_neuron")


def not_found(kind: str, text: str, names: Iterable[str]) -> str:
    """Return a one-line message for a text that names no plug-in.

    Args:
        kind: ``encoder``, ``backbone`` or ``plug-in``.
        text: the text that was given instead of a name, without parameters.
        names: all valid names.
    """
    hint = _hint(text) or _known_place(text)
    if text.endswith(".py"):
        return f"{text} does not say which class: expected {text}:Class{hint}"
    return f"unknown {kind} {text!r}{hint}" if hint else unknown(kind, text, names)


def _hint(text: str) -> str:
    """Suggest the classes of the file ``text`` or ``text.py`` if there is one, else return ""."""
    file = text if text.endswith(".py") else f"{text}.py"
    start = "" if file.startswith((".", os.sep)) else f".{os.sep}"
    places = [f"{start}{file}:{name}" for name in _classes_in(file)]
    return f"; did you mean {' or '.join(places)}?" if places else ""


def _known_place(name: str) -> str:
    """Suggest the file from which this user has run a plug-in of that name, else return ""."""
    found = next(places_of(name), "")
    return f"; did you mean {found}?" if found else ""


def only_class_in(file: str) -> str | None:
    """Return the name of the only class of a file that may be a plug-in, without running it."""
    names = _classes_in(file)
    return names[0] if len(names) == 1 else None


def _classes_in(file: str) -> list[str]:
    """Return the public classes at the top level of a file, without running it.

    If some of them are registered as plug-ins, only those are returned.
    """
    if not os.path.isfile(file):  # also for text that cannot be a path
        return []
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
    registered = [node for node in classes if any(map(_registers, node.decorator_list))]
    return [node.name for node in registered or classes]


def _registers(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called).endswith(_REGISTER)
