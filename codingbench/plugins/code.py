"""Import the code of a plug-in from a file or a module, and hash it.

Any exception that such code raises becomes a one-line error message.
"""

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
from codingbench.plugins.family import family
from codingbench.plugins.syntax import digest

T = TypeVar("T")

_SHIPPED = ("encoders.", "backbones.", "neurons.models.")  # the packages of plug-ins
_FILE_MODULE = "codingbench_plugin_"  # the names of modules that are run from a file begin so


def class_at(place: str, class_name: str, kind: str) -> type:
    """Return a class from a file or from an importable module.

    Args:
        place: path of a file, ending with ``.py``, or the import name of a module.
        class_name: name of the class in it.
        kind: ``encoder`` or ``backbone``, for messages.

    Raises:
        SpecError: there is no such file, module or class, or its code raises an exception.
    """
    place = os.path.expanduser(place)
    if not place.endswith(".py"):
        module = _module_named(place, class_name)
    elif os.path.isfile(place):  # also False for text that cannot be a path
        module = module_of(Path(place))
    else:
        raise SpecError(f"no file {place!r} for {kind} {place}:{class_name}")
    cls = imported(place, lambda: getattr(module, class_name, None))
    if not inspect.isclass(cls):
        if classes := [*_own_classes(module)]:
            raise SpecError(unknown(f"class in {place}:", class_name, classes))
        raise SpecError(f"there is no class {class_name!r} in {place}, which defines no class")
    return cls


def module_of(path: Path) -> ModuleType:
    """Return the module in a file. The file is run once for each version of its content.

    Raises:
        SpecError: the file cannot be read, or its code raises an exception.
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
    """Return ``run()``, a call that runs code of a plug-in.

    Raises:
        SpecError: the code raises any exception; the message starts with ``what``.
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
    return f"{source_of(cls) if is_of_file(cls) else cls.__module__}:{cls.__name__}"


def code_hash(cls: type) -> str:
    """Return 12 hexadecimal digits that identify the code of a plug-in.

    The hash covers the file of the class, the files of the plug-ins it derives from, and all files
    of their own packages or folders that they import, directly or not
    (:mod:`codingbench.plugins.family`). Code imported from elsewhere is not covered. Comments,
    docstrings and layout do not count (:mod:`codingbench.plugins.syntax`). The hash is part of
    every cell key, so changed code gives new cells.
    """
    return hash_of(files_of(cls))


def files_of(cls: type) -> list[Path]:
    """Return the files that :func:`code_hash` covers, in its order."""
    return _families(takewhile(_is_plugin, cls.__mro__))


def own_files_of(cls: type) -> list[Path]:
    """Return the files of :func:`files_of` that do not ship with codingbench."""
    return _families(base for base in takewhile(_is_plugin, cls.__mro__) if not ships(base))


def ships(cls: type) -> bool:
    """Return whether a class is part of codingbench."""
    return cls.__module__.partition(".")[0] == "codingbench"


def is_of_file(cls: type | str) -> bool:
    """Return whether a class, or the module with that name, was run from a file by its path."""
    name = cls if isinstance(cls, str) else cls.__module__
    return name.startswith(_FILE_MODULE)


def _families(classes: Iterable[type]) -> list[Path]:
    families = (family(Path(source_of(cls)), of_session=is_kept(cls)) for cls in classes)
    return list(dict.fromkeys(file for files in families for file in files))


def hash_of(files: Iterable[Path]) -> str:
    """Return 12 hexadecimal digits of the files' syntax, in this order, each file once."""
    digests = [digest(file) for file in dict.fromkeys(files)]
    if len(digests) == 1:
        return digests[0].hex()[:12]
    return hashlib.sha256(b"".join(digests)).hexdigest()[:12]


def _is_plugin(cls: type) -> bool:
    """Return whether a class is a plug-in, and not a base class of codingbench itself."""
    package, _, rest = cls.__module__.partition(".")
    return package != "codingbench" or rest.startswith(_SHIPPED)


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
            raise  # the module exists, but imports one that does not
    without = {"", os.getcwd()}.isdisjoint(sys.path)
    note = ", which does not include the current folder" if without else ""
    raise SpecError(f"no module {name!r} on Python's search path{note}{_nearby(name, class_name)}")


def _nearby(name: str, class_name: str) -> str:
    """Suggest ``file.py:Class`` if there is a file where the module was expected, else ""."""
    for candidate in (f"{name}.py", f"{name.replace('.', os.sep)}.py"):
        if os.path.isfile(candidate):
            start = "" if candidate.startswith((".", os.sep)) else f".{os.sep}"
            return f"; did you mean {start}{candidate}:{class_name}?"
    return ""


def _own_classes(module: ModuleType) -> Iterator[str]:
    """Yield the names of the classes defined in the module or in modules below it."""
    own = f"{module.__name__}."
    for name, thing in vars(module).items():
        if inspect.isclass(thing) and f"{thing.__module__}.".startswith(own):
            yield name
