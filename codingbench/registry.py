"""From a name to a plug-in: one file per plug-in, imported only when it is asked for.

``encoders/rate.py`` holds ``@register_encoder("rate") class RateEncoder``: the file's name is the
plug-in's name, so listing names imports nothing. A plug-in may also be

- in a file anywhere, ``path/to/file.py:Class``;
- in an importable module, ``package.module:Class``;
- published by an installed distribution, under the name of its entry point in the group
  ``codingbench.encoders`` or ``codingbench.backbones``.
"""

import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin
from weakref import WeakKeyDictionary

from codingbench.errors import SpecError, one_line, unknown
from codingbench.plugins.code import (
    class_at,
    code_hash,
    imported,
    is_kept,
    is_of_session,
    source_of,
)
from codingbench.plugins.entry_points import publication, published
from codingbench.plugins.specs import ALTERNATIVES, Spec, Value, format_spec, parse_spec

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
        package: import name of the folder that holds the shipped ones, and the group of the entry
            points of published ones.
        contract: ``module:Class`` that every plug-in derives from; imported late, it needs torch.
    """

    def __init__(self, kind: str, package: str, contract: str) -> None:
        self.kind = kind
        self.package = package
        self.contract = contract
        self._classes: dict[str, type] = {}
        self._names: WeakKeyDictionary[type, str] = WeakKeyDictionary()
        self._codes: WeakKeyDictionary[type, str] = WeakKeyDictionary()

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator: make the class known under ``name``.

        A class of a notebook or script replaces an earlier version of itself.

        Raises:
            ValueError: the name is taken by another class, a shipped plug-in or a published one.
        """

        def enter(cls: T) -> T:
            if owner := self._owner(name, cls):
                raise ValueError(f"{self.kind} {name!r} is already registered by {owner}")
            self._names.setdefault(cls, name)
            known = self._classes.get(name)
            if not (known and is_of_session(known) and is_kept(cls)):
                self._classes[name] = cls  # a kept copy does not replace the class it was made of
            return cls

        return enter

    def registered(self, name: str) -> type | None:
        """Return the class that has been registered under ``name``, without importing anything."""
        return self._classes.get(name)

    def require(self, cls: type) -> None:
        """Check that a class derives from the contract of this kind.

        Raises:
            SpecError: it does not.
        """
        self._of_contract(cls, cls.__name__)

    def names(self) -> list[str]:
        """All names that can be asked for, sorted; no plug-in is imported."""
        outside = (found.name for found in published(self.package))
        return sorted({*self.shipped(), *outside, *self._classes})

    def shipped(self) -> dict[str, Path]:
        """The files of the plug-ins in the package, by name; none is imported."""
        package = importlib.import_module(self.package)
        files = (file for folder in package.__path__ for file in Path(folder).glob("[!_]*.py"))
        return {file.stem: file for file in sorted(files)}

    def get(self, name: str) -> type:
        """The class of that name, its file imported if need be.

        Raises:
            SpecError: no such name, the message gives the nearest one; more than one of it; or its
                code is broken.
        """
        is_shipped = name in self.shipped()
        if found := publication(self.kind, self.package, name, is_shipped):
            return self._of_contract(found.load(self.kind), f"{name!r} of {found.distribution}")
        if is_shipped and name not in self._classes:
            module = f"{self.package}.{name}"
            imported(module, lambda: importlib.import_module(module))
            if name not in self._classes:
                raise SpecError(f"{module} registers no {self.kind} {name!r}")
        if name not in self._classes:
            raise SpecError(unknown(self.kind, name, self.names()))
        return self._classes[name]

    def resolve(self, text: str) -> Plugin:
        """Read ``name[param=value,...]``, ``file.py:Class[...]`` or ``package.module:Class[...]``
        and settle the parameters.

        Raises:
            SpecError: unknown name or parameter, a value of the wrong type or several values where
                one plug-in is meant, or a class that does not keep the contract.
        """
        spec = parse_spec(text)
        cls, name = self._named(spec.name)
        self.require(cls)
        declared = parameters(cls)
        given = {param: self._value(spec, declared, param, value) for param, value in spec.params}
        defaults: dict[str, Value] = {param: p.default for param, p in declared.items()}
        changed = {param: value for param, value in given.items() if value != defaults[param]}
        label = format_spec(name, changed)
        return Plugin(label, cls, tuple(sorted((defaults | changed).items())), self._code(cls))

    def _named(self, text: str) -> tuple[type, str]:
        """The class, and the name that its label begins with."""
        place, colon, class_name = text.rpartition(":")
        if not colon:
            if text.endswith(".py"):
                raise SpecError(f"{text} names no class: expected {text}:Class")
            return self.get(text), text
        cls = class_at(place, class_name, self.kind)
        names = [found.name for found in published(self.package) if found.entry.value == text]
        return cls, self._names.get(cls, next(iter(names), class_name))

    def _code(self, cls: type) -> str:
        """Return the hash of the class's files, which must not change while it is in memory."""
        code = code_hash(cls)
        if self._codes.setdefault(cls, code) != code:
            raise SpecError(
                f"{source_of(cls)} has changed since {cls.__name__} was imported: "
                "restart Python, or reload the module"
            )
        return code

    def _owner(self, name: str, cls: type) -> str:
        """Whose the name is already, if another's than that of the class."""
        known, shipped = self._classes.get(name), f"{self.package}.{name}"
        if known is not None and not _is_same(known, cls):
            session = f"the class {known.__name__} of this session"
            return session if is_of_session(known) else source_of(known)
        if name in self.shipped():
            return "" if cls.__module__ == shipped else shipped
        outside = [found for found in published(self.package) if found.name == name]
        return next((f.distribution for f in outside if not f.is_home_of(cls)), "")

    def _value(
        self, spec: Spec, declared: dict[str, inspect.Parameter], param: str, text: str
    ) -> Value:
        if param not in declared:
            raise SpecError(unknown(f"parameter of {self.kind} {spec.name}", param, declared))
        if ALTERNATIVES in text:
            raise SpecError(f"{spec.name}[{param}] expects one value here, got {text!r}")
        return _coerce(text, declared[param].annotation, f"{spec.name}[{param}]")

    def _of_contract(self, thing: object, called: str) -> type:
        """The thing, if it is a class that derives from the contract."""
        module, _, name = self.contract.partition(":")
        contract = getattr(importlib.import_module(module), name)
        if inspect.isclass(thing) and issubclass(thing, contract):
            return thing
        raise SpecError(f"{called} is no {self.kind}: expected a class of {module}.{name}")


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


def _is_same(known: type, cls: type) -> bool:
    """Return whether two classes are versions of one: of the session, or of the same file."""
    if known.__qualname__ != cls.__qualname__:
        return False
    if all(is_of_session(version) or is_kept(version) for version in (known, cls)):
        return True
    return _file_of(known) == _file_of(cls) != ""


def _file_of(cls: type) -> str:
    try:
        return source_of(cls)
    except SpecError:  # a class of a notebook has no file
        return ""


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
