"""From a name to a plug-in: one file per plug-in, imported only when it is asked for.

``encoders/rate.py`` holds ``@register_encoder("rate") class RateEncoder``: the file's name is the
plug-in's name, so listing names imports nothing. A plug-in in a file anywhere is named
``path/to/file.py:Class``.
"""

import hashlib
import importlib
import importlib.util
import inspect
import math
import os
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar, get_args, get_origin

from codingbench.errors import SpecError, one_line, unknown
from codingbench.specs import Spec, Value, format_spec, parse_spec

T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class Plugin:
    """A plug-in with its parameters settled.

    ``label`` is canonical: two requests with the same label are the same plug-in with the same
    parameters. ``params`` holds every parameter, those at their default included.
    """

    label: str
    cls: type
    params: tuple[tuple[str, Value], ...]
    code: str  # hash of the file that defines it

    def build(self, *args: Any) -> Any:
        """``cls(*args, **params)``. Raises what the constructor raises: ValueError refuses."""
        return self.cls(*args, **dict(self.params))


class Registry:
    """The plug-ins of one kind. Names are unique: a second registration is an error.

    Args:
        kind: what a plug-in is called in messages.
        package: import name of the folder that holds the shipped ones.
        contract: ``module:Class`` that every plug-in derives from; imported late, it needs torch.
    """

    def __init__(self, kind: str, package: str, contract: str) -> None:
        self.kind = kind
        self.package = package
        self.contract = contract
        self._classes: dict[str, type] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator: make the class known under ``name``.

        Raises:
            ValueError: the name is taken by another class, or by a shipped plug-in.
        """

        def enter(cls: T) -> T:
            known = self._classes.get(name)
            if known is not None and _identity(known) != _identity(cls):
                raise ValueError(f"{self.kind} {name!r} is already registered by {_source(known)}")
            shipped = f"{self.package}.{name}"
            if name in self._shipped() and cls.__module__ != shipped:
                raise ValueError(f"{self.kind} {name!r} is already registered by {shipped}")
            self._classes[name] = cls
            return cls

        return enter

    def names(self) -> list[str]:
        """All names that can be asked for, sorted; no plug-in is imported."""
        return sorted({*self._shipped(), *self._classes})

    def get(self, name: str) -> type:
        """The class registered under ``name``, its file imported if need be.

        Raises:
            SpecError: no such name, the message gives the nearest one; or its file is broken.
        """
        if name not in self._classes and name in self._shipped():
            module = f"{self.package}.{name}"
            _imported(module, lambda: importlib.import_module(module))
            if name not in self._classes:
                raise SpecError(f"{module} registers no {self.kind} {name!r}")
        if name not in self._classes:
            raise SpecError(unknown(self.kind, name, self.names()))
        return self._classes[name]

    def resolve(self, text: str) -> Plugin:
        """Read ``name[param=value,...]`` or ``file.py:Class[...]`` and settle its parameters.

        Raises:
            SpecError: unknown name or parameter, a value of the wrong type, or a class that does
                not keep the contract.
        """
        spec = parse_spec(text)
        path, colon, class_name = spec.name.rpartition(":")
        if colon and path.endswith(".py"):
            cls = self._from_file(Path(path), class_name)
            name = next((n for n, c in self._classes.items() if c is cls), class_name)
        else:
            cls, name = self.get(spec.name), spec.name
        self._check_contract(cls)
        declared = parameters(cls)
        given = {param: self._value(spec, declared, param, value) for param, value in spec.params}
        defaults: dict[str, Value] = {param: p.default for param, p in declared.items()}
        changed = {param: value for param, value in given.items() if value != defaults[param]}
        label = format_spec(name, changed)
        return Plugin(label, cls, tuple(sorted((defaults | changed).items())), code_hash(cls))

    def _shipped(self) -> list[str]:
        package = importlib.import_module(self.package)
        modules = pkgutil.iter_modules(package.__path__)
        return [module.name for module in modules if not module.name.startswith("_")]

    def _value(
        self, spec: Spec, declared: dict[str, inspect.Parameter], param: str, text: str
    ) -> Value:
        if param not in declared:
            raise SpecError(unknown(f"parameter of {self.kind} {spec.name}", param, declared))
        return _coerce(text, declared[param].annotation, f"{spec.name}[{param}]")

    def _check_contract(self, cls: type) -> None:
        module, _, name = self.contract.partition(":")
        if not issubclass(cls, getattr(importlib.import_module(module), name)):
            raise SpecError(
                f"{cls.__name__} is no {self.kind}: expected a class of {module}.{name}"
            )

    def _from_file(self, path: Path, class_name: str) -> type:
        if not os.path.isfile(path):  # false, too, for what no path can be
            raise SpecError(f"no file {str(path)!r} for {self.kind} {path}:{class_name}")
        module = module_of(path)
        cls = getattr(module, class_name, None)
        if not inspect.isclass(cls):
            own = [n for n, c in vars(module).items() if _is_defined_in(module, c)]
            raise SpecError(unknown(f"class in {path}:", class_name, own))
        return cls


ENCODERS = Registry("encoder", "codingbench.encoders", "codingbench.encoder:Encoder")
BACKBONES = Registry("backbone", "codingbench.backbones", "codingbench.backbone:Backbone")
register_encoder = ENCODERS.register
register_backbone = BACKBONES.register


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a plug-in's constructor: what brackets can set.

    Raises:
        SpecError: a parameter has no default that can be written, or an unreadable annotation.
    """
    try:
        signature = inspect.signature(cls, eval_str=True)
    except Exception as error:  # annotations are code
        reason = one_line(error)
        raise SpecError(f"cannot read the annotations of {cls.__name__}: {reason}") from error
    found = {
        name: p
        for name, p in signature.parameters.items()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for name, p in found.items():
        if not isinstance(p.default, Value):
            where = f"parameter {name!r} of {cls.__name__}"
            raise SpecError(f"{where} needs a default that is true or false, a number, or text")
    return found


def code_hash(cls: type) -> str:
    """12 hex digits of the file that defines the class: changed code makes new cells."""
    return hashlib.sha256(Path(_source(cls)).read_bytes()).hexdigest()[:12]


def _source(cls: type) -> str:
    return inspect.getfile(cls)


def _identity(cls: type) -> tuple[str, str]:
    return _source(cls), cls.__qualname__


def module_of(path: Path) -> ModuleType:
    """The file as a module, run once for each content it has had.

    Raises:
        SpecError: it cannot be read, or raises an exception.
    """
    try:
        identity = os.fsencode(path.resolve()) + path.read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read {str(path)!r}: {error.strerror}") from error
    name = f"codingbench_plugin_{hashlib.sha256(identity).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    loader = module_spec.loader
    try:
        _imported(str(path), lambda: loader.exec_module(module))
    except SpecError:
        del sys.modules[name]
        raise
    return module


def _imported(what: str, run: Callable[[], object]) -> None:
    """Run the code of a plug-in's file; whatever it raises is one line to the user."""
    try:
        run()
    except (Exception, SystemExit) as error:
        raise SpecError(f"{what} cannot be imported: {one_line(error)}") from error


def _is_defined_in(module: ModuleType, thing: object) -> bool:
    return inspect.isclass(thing) and thing.__module__ == module.__name__


def _coerce(text: str, annotation: Any, where: str) -> Value:
    """``text`` as the annotated type: bool, int, float, one of a Literal, or as it is."""
    if get_origin(annotation) is Literal:
        choices: dict[str, Value] = {str(choice): choice for choice in get_args(annotation)}
        if text not in choices:
            raise SpecError(unknown(f"value for {where}", text, choices))
        return choices[text]
    if annotation is bool:
        if text.lower() not in ("true", "false"):
            raise SpecError(f"{where} expects true or false, got {text!r}")
        return text.lower() == "true"
    if annotation in (int, float):
        return _number(text, annotation, where)
    return text


def _number(text: str, kind: type[int] | type[float], where: str) -> int | float:
    try:
        number = kind(text)
        if math.isfinite(number):
            return number
    except (ValueError, OverflowError):
        pass
    expected = "a whole number" if kind is int else "a finite number"
    raise SpecError(f"{where} expects {expected}, got {text!r}")
