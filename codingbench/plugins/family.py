"""Find the files that belong to a plug-in: its own, and those of its package or folder it imports.

Imports are read from the source, so nothing is run. They may stand anywhere in a file, also in
functions. These forms are followed, directly and from file to file:

    from .name import x        from . import name         from ..pack.name import x
    import name                from name import x         import pack.name as n
    importlib.import_module("pack.name")                  __import__("name")

What a plug-in imports from other distributions, or under a name that is computed, is not found.
"""

import ast
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

_SUFFIXES: Final = (".py", *EXTENSION_SUFFIXES)
_CALLS: Final = ("import_module", "__import__")

Imported = tuple[int, str, tuple[str, ...]]
"""Leading dots, the module's name, and the names taken from it, which may be modules."""


def family(file: Path, *, of_session: bool = False) -> list[Path]:
    """Return a file and those of its own package or folder that it imports, directly or not.

    Args:
        file: a Python file.
        of_session: the file was written by :mod:`codingbench.plugins.source`, whose imports come
            from the folder of the notebook or script. They are found among the loaded modules.
    """
    found, new = [file], [file]
    while new:
        path = new.pop(0)
        for imported in _imports(path):
            beside = list(_files(path, imported))
            if of_session and not imported[0] and not beside:
                beside = list(_loaded(imported))
            fresh = [each for each in dict.fromkeys(beside) if each not in found]
            found += fresh
            new += fresh
    return found


def _imports(file: Path) -> Sequence[Imported]:
    """Return what a file imports; nothing for one that is not readable Python source."""
    if file.suffix != ".py":
        return ()
    about = file.stat()
    return _parsed(file, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=1024)
def _parsed(file: Path, mtime_ns: int, size: int) -> tuple[Imported, ...]:
    """Return what this version of a file imports."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # a broken file is reported when it is imported
        return ()
    return tuple(found for node in ast.walk(tree) for found in _imported_by(node))


def _imported_by(node: ast.AST) -> Iterator[Imported]:
    if isinstance(node, ast.ImportFrom):
        yield node.level, node.module or "", tuple(alias.name for alias in node.names)
    elif isinstance(node, ast.Import):
        for alias in node.names:  # "import a.b" gives access to all of a
            parts = alias.name.split(".")
            yield from ((0, ".".join(parts[:end]), ()) for end in range(1, len(parts) + 1))
    elif isinstance(node, ast.Call) and (name := _called_with(node)):
        plain = name.lstrip(".")
        yield len(name) - len(plain), plain, ()


def _called_with(call: ast.Call) -> str:
    """Return the name that a call of ``import_module`` or ``__import__`` states, or ""."""
    function = call.func
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
    if called not in _CALLS or not isinstance(name, str):
        return ""
    return name if all(part.isidentifier() for part in name.lstrip(".").split(".")) else ""


def _files(file: Path, imported: Imported) -> Iterator[Path]:
    """Yield the files that an import means, as far as they are in the file's package or folder."""
    level, module, names = imported
    parts = module.split(".") if module else []
    for root in _roots(file, level, parts):
        place = root.joinpath(*parts)
        modules = [path for name in names for path in _module_files(place / name)]
        # "from package import a, b" needs the package itself for names that are not its modules
        if not names or len(modules) < len(names):
            yield from _module_files(place if parts else place / "__init__")
        yield from modules


def _roots(file: Path, level: int, parts: list[str]) -> Iterator[Path]:
    """Yield the folders in which the import may look."""
    if level:
        yield (file.parent, *file.parent.parents)[min(level - 1, len(file.parent.parents))]
    elif parts and parts[0] != "codingbench":  # the contract is part of the engine
        yield file.parent
        yield from (folder.parent for folder in file.parents if folder.name == parts[0])


def _module_files(place: Path) -> list[Path]:
    """Return the file of the module at ``place``, a path without suffix, in a list; or nothing."""
    candidates = [
        *(place.with_name(f"{place.name}{suffix}") for suffix in _SUFFIXES),
        place / "__init__.py",
    ]
    return [path for path in candidates if path.is_file()][:1]


def _loaded(imported: Imported) -> Iterator[Path]:
    """Yield the files of loaded modules that no distribution installed."""
    _, module, names = imported
    for name in (module, *(f"{module}.{name}" for name in names)):
        path = getattr(sys.modules.get(name), "__file__", None)
        if path and name.partition(".")[0] != "codingbench" and not _is_installed(Path(path)):
            yield Path(path)


def _is_installed(path: Path) -> bool:
    if not {"site-packages", "dist-packages"}.isdisjoint(path.parts):
        return True
    return any(path.is_relative_to(folder) for folder in sysconfig.get_paths().values())
