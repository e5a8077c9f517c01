"""Registries of encoders, backbones and neurons: find a plug-in by name, and import it only then.

``encoders/rate.py`` holds ``@register_encoder("rate") class RateEncoder``. The file's name is the
plug-in's name, so that listing the names imports nothing. A plug-in can also be

- in any file, written ``path/to/file.py:Class``;
- in an importable module, written ``package.module:Class``;
- published by an installed distribution, under the name of its entry point in the group
  ``codingbench.encoders`` or ``codingbench.backbones``.
"""

import importlib
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
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
from codingbench.plugins.hints import not_found
from codingbench.plugins.specs import ALTERNATIVES, Spec, Value, format_spec, parse_spec

T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class Plugin:
    """A plug-in class together with a value for each of its parameters.

    ``label`` is canonical: two requests have the same label if and only if they name the same
    plug-in with the same parameters. ``params`` holds every parameter, including those left at
    their default.
    """

    label: str
    cls: type
    params: tuple[tuple[str, Value], ...]
    code: str  # hash of the file that defines it

    def build(self, *args: Any) -> Any:
        """Return ``cls(*args, **params)``.

        Raises:
            ValueError: the plug-in rejects these arguments, for instance this number of steps.
        """
        return self.cls(*args, **dict(self.params))


class Registry:
    """The plug-ins of one kind, by name. Registering a second class under a name is an error.

    Args:
        kind: the word for such a plug-in in messages, such as ``encoder``.
        package: import name of the package with the shipped plug-ins. It is also the entry-point
            group of the plug-ins that other distributions publish.
        contract: base class of every plug-in, as ``module:Class``. It is imported on first use,
            because it imports torch.
        adapter: function ``module:name`` that makes a plug-in of a callable that is none.
    """

    def __init__(self, kind: str, package: str, contract: str, adapter: str = "") -> None:
        self.kind = kind
        self.package = package
        self.contract = contract
        self.adapter = adapter
        self._classes: dict[str, type] = {}
        self._names: WeakKeyDictionary[type, str] = WeakKeyDictionary()
        self._codes: WeakKeyDictionary[type, str] = WeakKeyDictionary()

    def register(self, name: str) -> Callable[[T], T]:
        """Return a class decorator that registers a class under ``name``.

        A class of a notebook or script replaces an earlier version of itself.

        Raises:
            TypeError: the decorator is written without a name.
            ValueError: the name belongs to another class, a shipped plug-in or a published one.
        """
        if not isinstance(name, str):
            got = getattr(name, "__name__", repr(name))
            raise TypeError(f'write @register_{self.kind}("name"): expected a name, got {got}')

        def add(cls: T) -> T:
            is_copy = _loads_copies.get() and not self._ships(cls, name)
            if owner := self._owner(name, cls, is_copy):
                raise ValueError(f"{self.kind} {name!r} is already registered by {owner}")
            self._names.setdefault(cls, name)
            if is_copy:
                return cls  # found by its place alone: other versions may have the same name
            known = self._classes.get(name)
            if not (known and is_of_session(known) and is_kept(cls)):
                self._classes[name] = cls  # a kept copy does not replace the class it was made of
            return cls

        return add

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
        """Return the names of all plug-ins, sorted, without importing any."""
        outside = (found.name for found in published(self.package))
        return sorted({*self.shipped(), *outside, *self._classes})

    def shipped(self) -> dict[str, Path]:
        """Return the file of each shipped plug-in by its name, without importing any."""
        files = (file for folder in self._folders() for file in folder.glob("[!_]*.py"))
        return {file.stem: file for file in sorted(files)}

    def _folders(self) -> list[Path]:
        """Return the folders of the package; packages around it are not imported if possible.

        ``codingbench.neurons`` would import torch, which reading results does without.
        """
        top, *inner = self.package.split(".")
        below = [Path(place, *inner) for place in importlib.import_module(top).__path__]
        found = [folder for folder in below if (folder / "__init__.py").is_file()]
        return found or [Path(place) for place in importlib.import_module(self.package).__path__]

    def get(self, name: str) -> type:
        """Return the class with that name, importing its file if necessary.

        Raises:
            SpecError: no plug-in has that name (the message suggests the nearest one), several
                have it, or its code cannot be imported.
        """
        is_shipped = name in self.shipped()
        if found := publication(self.kind, self.package, name, is_shipped):
            return self._of_contract(found.load(self.kind), f"{name!r} of {found.distribution}")
        if is_shipped and name not in self._classes:
            module = f"{self.package}.{name}"
            imported(module, lambda: importlib.import_module(module))
            if name not in self._classes:
                raise SpecError(f"{module} does not register the {self.kind} {name!r}")
        if name not in self._classes:
            raise SpecError(not_found(self.kind, name, self.names()))
        return self._classes[name]

    def resolve(self, text: str) -> Plugin:
        """Return the plug-in that a text describes, with all its parameters.

        Args:
            text: ``name[param=value,...]``, ``file.py:Class[...]`` or
                ``package.module:Class[...]``; the brackets can be left out.

        Raises:
            SpecError: the name or a parameter is unknown, a value has the wrong type, a parameter
                has several values, or the class does not derive from the contract.
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

    def name_at(self, text: str) -> str | None:
        """Return the name of the class at ``file.py:Class``; None if it is of another kind.

        Raises:
            SpecError: there is no such class, or its code cannot be imported.
        """
        place = parse_spec(text).name
        if self is not ENCODERS and ENCODERS.adapts(place):
            return None  # a function, which only an encoder can be made of
        cls, name = self._named(place)
        try:
            self.require(cls)
        except SpecError:
            return None
        return name

    def _named(self, text: str) -> tuple[type, str]:
        """Return the class and the name at the start of its label."""
        place, colon, class_name = text.rpartition(":")
        if not colon:
            return self.get(text), text
        if (adapted := self._adapted(place, class_name)) is not None:
            return adapted
        cls = class_at(place, class_name, self.kind)
        names = [found.name for found in published(self.package) if found.entry.value == text]
        return cls, self._names.get(cls, next(iter(names), class_name))

    def adapts(self, text: str) -> bool:
        """Return whether ``place:name`` is a callable that is no plug-in and can become one."""
        place, colon, name = text.rpartition(":")
        return bool(colon) and self._adapted(place, name) is not None

    def _adapted(self, place: str, name: str) -> tuple[type, str] | None:
        """Return a class for a callable of another library with its name; None for a plug-in."""
        if not self.adapter:
            return None
        module, _, function = self.adapter.partition(":")
        cls = getattr(importlib.import_module(module), function)(place, name)
        return None if cls is None else (cls, cls.label)

    def _code(self, cls: type) -> str:
        """Return the hash of the class's files, which must not change while it is in memory."""
        code = getattr(cls, "foreign_code", "") or code_hash(cls)
        if self._codes.setdefault(cls, code) != code:
            raise SpecError(
                f"{source_of(cls)} or a file it imports has changed since {cls.__name__} was "
                "imported: restart Python, or reload the module"
            )
        return code

    def _owner(self, name: str, cls: type, is_copy: bool) -> str:
        """Return who already has the name, or "" if it is free or belongs to ``cls``."""
        known, shipped = self._classes.get(name), f"{self.package}.{name}"
        if is_copy:
            return shipped if name in self.shipped() else ""
        if known is not None and not _is_same(known, cls):
            session = f"the class {known.__name__} of this session"
            return session if is_of_session(known) else source_of(known)
        if name in self.shipped():
            return "" if self._ships(cls, name) else shipped
        outside = [found for found in published(self.package) if found.name == name]
        return next((f.distribution for f in outside if not f.is_home_of(cls)), "")

    def _ships(self, cls: type, name: str) -> bool:
        """Return whether a class is the shipped plug-in with that name."""
        return cls.__module__ == f"{self.package}.{name}" and name in self.shipped()

    def _value(
        self, spec: Spec, declared: dict[str, inspect.Parameter], param: str, text: str
    ) -> Value:
        if param not in declared:
            raise SpecError(unknown(f"parameter of {self.kind} {spec.name}", param, declared))
        if ALTERNATIVES in text:
            raise SpecError(f"{spec.name}[{param}] expects one value here, got {text!r}")
        return _coerce(text, declared[param].annotation, f"{spec.name}[{param}]")

    def _of_contract(self, thing: object, called: str) -> type:
        """Return ``thing``, which must be a class that derives from the contract."""
        module, _, name = self.contract.partition(":")
        contract = getattr(importlib.import_module(module), name)
        if inspect.isclass(thing) and issubclass(thing, contract):
            return thing
        raise SpecError(f"{called} is not a subclass of {module}.{name}")


_loads_copies: ContextVar[bool] = ContextVar("loads_copies", default=False)


@contextmanager
def loading_copies() -> Iterator[None]:
    """Register no class that is imported inside the context: it is a kept copy of a plug-in."""
    token = _loads_copies.set(True)
    try:
        yield
    finally:
        _loads_copies.reset(token)


ENCODERS = Registry(
    "encoder",
    "codingbench.encoders",
    "codingbench.encoder:Encoder",
    adapter="codingbench.plugins.adapter:adapted",
)
BACKBONES = Registry("backbone", "codingbench.backbones", "codingbench.backbone:Backbone")
NEURONS = Registry("neuron", "codingbench.neurons.models", "codingbench.neurons.neuron:Neuron")
DEFAULT_NEURON = "default"
"""Stands for the neurons that the backbone makes itself; not the name of a plug-in."""
register_encoder = ENCODERS.register
register_backbone = BACKBONES.register
register_neuron = NEURONS.register


def network_name(backbone: str, neuron: str) -> str:
    """Return the name of a backbone in sentences, with the model of its neurons if not its own.

    >>> network_name("csnn", "default"), network_name("csnn", "lif[beta=0.9]")
    ('csnn', 'csnn · lif[beta=0.9]')
    """
    return backbone if neuron == DEFAULT_NEURON else f"{backbone} · {neuron}"


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Return the keyword-only parameters of a plug-in's constructor, which ``[...]`` can set.

    Raises:
        SpecError: an annotation cannot be evaluated, or the default of a parameter is missing or
            is not a boolean, a number or text.
    """
    try:
        signature = inspect.signature(cls, eval_str=True)
    except Exception as error:  # evaluating annotations runs code
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
            raise SpecError(f"{where} needs a default: true, false, a number or text")
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
    """Convert text to the annotated type: bool, int, float or a Literal; else leave it as text."""
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
