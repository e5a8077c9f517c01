"""The code of a plug-in: a file run as a module, or a module imported by name; its class, its hash.

Whatever such code raises is one line to the user.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from codingbench.errors import SpecError, one_line, unknown

T = TypeVar("T")

_FILE_MODULE = "codingbench_plugin_"  # the names of modules that are run from a file begin so


def class_at(place: str, class_name: str, kind: str) -> type:
    """The class in a file, whose name ends with ``.py``, or in an importable module.

    Raises:
        SpecError: there is no such file, module or class, or its code raises an exception.
    """
    if not place.endswith(".py"):
        module = _module_named(place, class_name)
    elif os.path.isfile(place):  # false, too, for what no path can be
        module = module_of(Path(place))
    else:
        raise SpecError(f"no file {place!r} for {kind} {place}:{class_name}")
    cls = imported(place, lambda: getattr(module, class_name, None))
    if not inspect.isclass(cls):
        raise SpecError(unknown(f"class in {place}:", class_name, _own_classes(module)))
    return cls


def module_of(path: Path) -> ModuleType:
    """The file as a module, run once for each content it has had.

    Raises:
        SpecError: it cannot be read, or raises an exception.
    """
    try:
        identity = os.fsencode(path.resolve()) + path.read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read {str(path)!r}: {error.strerror}") from error
    name = f"{_FILE_MODULE}{hashlib.sha256(identity).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    loader = module_spec.loader
    try:
        imported(str(path), lambda: loader.exec_module(module))
    except SpecError:
        del sys.modules[name]
        raise
    return module


def imported(what: str, run: Callable[[], T]) -> T:
    """What ``run`` returns, which runs the code of a plug-in.

    Raises:
        SpecError: it raises anything; ``what`` begins the line.
    """
    try:
        return run()
    except (Exception, SystemExit) as error:
        raise SpecError(f"{what} cannot be imported: {one_line(error)}") from error


def source_of(cls: type) -> str:
    """Return the path of the file that defines the class.

    Raises:
        SpecError: there is no such file, as for a class of a notebook.
    """
    try:
        return inspect.getfile(cls)
    except (TypeError, OSError) as error:
        raise SpecError(f"the class {cls.__qualname__} has no source file") from error


def is_of_session(cls: type) -> bool:
    """Return whether a class was defined in a notebook or script, in the module ``__main__``."""
    return cls.__module__ == "__main__"


def is_kept(cls: type) -> bool:
    """Return whether a class comes from a file that :mod:`codingbench.plugins.source` wrote."""
    return getattr(sys.modules.get(cls.__module__), "KEPT_FROM_SESSION", False) is True


def place_of(cls: type) -> str:
    """Return the text that names a class in a grid: ``package.module:Class`` or ``file.py:Class``.

    Raises:
        SpecError: the class is defined inside a function or another class, where no other process
            finds it.
    """
    if cls.__qualname__ != cls.__name__:
        raise SpecError(
            f"{cls.__qualname__} cannot be a plug-in: "
            "expected a class that is defined outside of functions and other classes"
        )
    is_file = cls.__module__.startswith(_FILE_MODULE)
    return f"{source_of(cls) if is_file else cls.__module__}:{cls.__name__}"


def code_hash(cls: type) -> str:
    """12 hex digits of the files that define the class and the plug-ins that it derives from, each
    with its family: changed code makes new cells.

    Helpers that these import from elsewhere are not covered.
    """
    plugins = takewhile(_is_plugin, cls.__mro__)
    return hash_of(file for base in plugins for file in family(Path(source_of(base))))


def hash_of(files: Iterable[Path]) -> str:
    """12 hex digits of the contents, each file counted once, in this order."""
    digests = [hashlib.sha256(file.read_bytes()) for file in dict.fromkeys(files)]
    if len(digests) == 1:
        return digests[0].hexdigest()[:12]
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()[:12]


def family(file: Path) -> list[Path]:
    """A file, and the files beside it that it imports as ``from .name import ...``, and so on."""
    found, new = [file], [file]
    while new:
        tree = ast.parse(new.pop(0).read_bytes())
        imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
        names = [node.module for node in imports if node.level == 1 and node.module]
        beside = [file.parent / f"{name}.py" for name in names]
        new += [path for path in beside if path not in found and path.is_file()]
        found += [path for path in new if path not in found]
    return found


def _is_plugin(cls: type) -> bool:
    """Not one of the engine's own classes, which all plug-ins derive from in the end."""
    package, _, rest = cls.__module__.partition(".")
    return package != "codingbench" or rest.partition(".")[0] in ("encoders", "backbones")


def _module_named(name: str, class_name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        expected = "expected a name, file.py:Class or package.module:Class"
        raise SpecError(f"cannot read {name}:{class_name}: {expected}{_nearby(name, class_name)}")
    try:
        return imported(name, lambda: importlib.import_module(name))
    except SpecError as error:
        cause = error.__cause__
        if not isinstance(cause, ModuleNotFoundError) or not f"{name}.".startswith(
            f"{cause.name}."
        ):
            raise  # it is there, and imports what is not
    lacks = "" if {"", os.getcwd()} & set(sys.path) else ", which lacks the current folder"
    raise SpecError(f"no module {name!r} on Python's search path{lacks}{_nearby(name, class_name)}")


def _nearby(name: str, class_name: str) -> str:
    """The form that names a file, if one lies where the module was expected."""
    for candidate in (f"{name}.py", f"{name.replace('.', os.sep)}.py"):
        if os.path.isfile(candidate):
            start = "" if candidate.startswith((".", os.sep)) else f".{os.sep}"
            return f"; did you mean {start}{candidate}:{class_name}?"
    return ""


def _own_classes(module: ModuleType) -> Iterator[str]:
    """Names of the classes that the module defines, or that the modules inside it do."""
    own = f"{module.__name__}."
    for name, thing in vars(module).items():
        if inspect.isclass(thing) and f"{thing.__module__}.".startswith(own):
            yield name
