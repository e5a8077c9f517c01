"""Images and labels that a user's Python file provides: ``data.py:MyDataset``.

The name in the file may be a function without arguments, a class, or an object. It gives arrays
(see :mod:`codingbench.datasets.arrays`) or items ``(image, label)``, like a torch ``Dataset``.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from codingbench.datasets.arrays import ArrayData, array_data
from codingbench.errors import DatasetError, SpecError, one_line, unknown
from codingbench.plugins.code import hash_of, module_of
from codingbench.plugins.family import family

_PAIR: Final = ("x", "y")
_FOUR: Final = ("x_train", "y_train", "x_test", "y_test")
_EXPECTED: Final = (
    "expected arrays by name, (x, y), (x_train, y_train, x_test, y_test),"
    " ((x_train, y_train), (x_test, y_test)), or items (image, label)"
)


def code_of(path: Path) -> str:
    """Return a hash of the file and of the files beside it that it imports."""
    return hash_of(family(path))


@lru_cache(maxsize=2)
def read_python(path: Path, name: str, code: str) -> ArrayData:
    """Return the data of the function, class or object ``name`` of a file, which is run.

    Args:
        path: the Python file.
        name: a name that the file defines.
        code: from :func:`code_of`, so that a changed file is run again.

    Raises:
        SpecError: the file cannot be run, or does not define the name.
        DatasetError: the user's code raises an exception, or does not give images and labels.
    """
    module = module_of(path)
    if not hasattr(module, name):
        public = [each for each in vars(module) if not each.startswith("_")]
        raise SpecError(unknown(f"name in {path}:", name, public))
    place = f"{path}:{name}"
    try:
        given = _named(_provided(getattr(module, name)))
    except (Exception, SystemExit) as error:
        raise DatasetError(f"{place} failed: {one_line(error)}") from error
    if given is None:
        raise DatasetError(f"{place} gives something else: {_EXPECTED}")
    return array_data(given, place)


def _provided(thing: Any) -> Any:
    """Call a function or class; a class with ``train`` or ``split`` is made for both splits."""
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return thing
    make: Callable[..., Any] = thing
    names = inspect.signature(make).parameters
    if "train" in names:
        return make(train=True), make(train=False)
    if "split" in names:
        return make(split="train"), make(split="test")
    return make()


def _named(found: Any) -> dict[str, Any] | None:
    """Return what was provided as arrays by name; None if it has another form."""
    if isinstance(found, Mapping):
        return {str(name): array for name, array in found.items()}
    if isinstance(found, tuple | list) and len(found) == len(_FOUR):
        return dict(zip(_FOUR, found, strict=True))
    if isinstance(found, tuple | list) and len(found) == 2:
        parts = [_pair(part) for part in found]
        if parts[0] and parts[1]:
            return dict(zip(_FOUR, (*parts[0], *parts[1]), strict=True))
    pair = _pair(found)
    return dict(zip(_PAIR, pair, strict=True)) if pair else None


def _pair(found: Any) -> tuple[Any, Any] | None:
    """Return images and labels of a pair of arrays, or of a data set of items."""
    if isinstance(found, tuple | list):
        return (found[0], found[1]) if len(found) == 2 and _is_array(found[0]) else None
    if _is_array(found) or not hasattr(found, "__getitem__") or not hasattr(found, "__len__"):
        return None
    items = [found[row] for row in range(len(found))]
    images = np.stack([np.asarray(item[0]) for item in items])
    return images, np.array([_label(item[1]) for item in items])


def _is_array(found: Any) -> bool:
    return hasattr(found, "__array__") and np.ndim(found) > 0


def _label(label: Any) -> Any:
    to_python: Callable[[], Any] | None = getattr(label, "item", None)
    return to_python() if to_python else label
