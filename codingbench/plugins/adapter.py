"""Encoders of other libraries as codings: any callable from images to spikes over time.

    snntorch.spikegen:rate[gain=0.5]                    a function
    spikingjelly.activation_based.encoding:LatencyEncoder      a class whose objects are called
    ./mine.py:encode[T=how_many,axes=BTCHW]              what cannot be found is said in brackets

The callable gets a batch of raw images [B, C, H, W] in [0, 1]. How it takes T and in which order of
axes it returns its spikes is found by calling it once on noise. The random numbers that it draws
from global generators come from the generator of the cell, and global generators stay unchanged.
"""

import ast
import hashlib
import inspect
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from codingbench.backbone import Backbone
from codingbench.encoder import Encoder, PixelEncoder, Setting
from codingbench.errors import SpecError, one_line, unknown
from codingbench.plugins.code import imported, module_of

HOMES: Final = {
    "snntorch": "snntorch.spikegen",
    "spikingjelly": "spikingjelly.activation_based.encoding",
    "norse": "norse.torch.functional.encode",
}
"""Short name of a library -> the module with its encoders: ``snntorch:rate``."""

STEPS: Final = ("num_steps", "T", "seq_length", "time_steps", "timesteps", "n_steps", "steps")
"""Names of parameters that are taken for the number of time steps, in this order."""

AXES: Final = ("TBCHW", "BTCHW", "BCHWT", "BCHW")
"""Orders of axes of what a callable returns. ``BCHW`` is one step; it is called for each."""

_OWN: Final = {"T": "", "axes": "", "gets": "images"}  # parameters of the adapter itself
_PROBED: Final = (7, 6)  # rows and columns of the probe


def adapted(place: str, name: str) -> type[PixelEncoder] | None:
    """Return a coding that calls ``name`` of a module or file.

    Args:
        place: path of a file, ending with ``.py``; import name of a module; a key of ``HOMES``; or
            ``adapt``, with the import name of the module before the name.
        name: a function, or a class whose objects can be called.

    Returns:
        None if there is no such thing, or it is a plug-in of codingbench or another class.

    Raises:
        SpecError: a library of ``HOMES`` is not installed, or has no such function or class.
    """
    if place == "adapt":  # adapt:module.name
        place, _, name = name.rpartition(".")
    home = HOMES.get(place)
    module = _imported(home or place, is_required=home is not None)
    thing = imported(home or place, lambda: getattr(module, name, None))
    if thing is None and home:
        known = [key for key, value in vars(module).items() if _is_adaptable(value)]
        raise SpecError(unknown(f"function or class in {home}:", name, known))
    if not _is_adaptable(thing):
        return None
    return _subclass(f"{home or place}:{name}", thing)


def _imported(place: str, is_required: bool) -> ModuleType | None:
    """Return a module, or None if it cannot be imported and is not required."""
    try:
        if place.endswith(".py"):
            return module_of(Path(os.path.expanduser(place)))
        return imported(place, lambda: import_module(place))
    except SpecError:
        if is_required:
            raise
        return None


def _is_adaptable(thing: object) -> bool:
    """Return whether a thing is a function, or a class of callables that is not a plug-in."""
    if inspect.isclass(thing):
        is_module = issubclass(thing, nn.Module)
        return (is_module or "__call__" in vars(thing)) and not issubclass(
            thing, Encoder | Backbone
        )
    return callable(thing)


def label_of(text: str) -> str:
    """Return the name in tables: with the library if that is known, else as that of a class.

    >>> label_of("snntorch.spikegen:rate"), label_of("./mine.py:encode")
    ('snntorch:rate', 'encode')
    """
    place, _, name = text.rpartition(":")
    library = {home: library for library, home in HOMES.items()}.get(place)
    return f"{library}:{name}" if library else name


def is_of_library(label: str) -> bool:
    """Return whether a label names an encoder of a known library, whose import is harmless.

    >>> is_of_library("snntorch:rate[gain=0.5]"), is_of_library("os:system")
    (True, False)
    """
    place, colon, name = label.partition("[")[0].rpartition(":")
    return bool(colon) and place in HOMES and name.isidentifier()


@cache
def _subclass(text: str, thing: Callable[..., Any]) -> type[PixelEncoder]:
    """Return an encoder class for a callable, with the parameters that brackets may set."""
    declared = _declared(thing)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=str)
        for name, default in (declared | _OWN).items()
    ]
    setting = inspect.Parameter("setting", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    doc = f"{text} as it is.\n\n{inspect.getdoc(thing) or ''}"
    attributes = {
        "thing": staticmethod(thing),
        "text": text,
        "label": label_of(text),
        "foreign_code": _code_of(text, thing),
        "__doc__": doc,
        "__module__": __name__,
        "__signature__": inspect.Signature([setting, *options]),
    }
    return type(text.rpartition(":")[2], (_Adapted,), attributes)


class _Adapted(PixelEncoder):
    """Base class of adapted encoders.

    Args:
        T: name of the parameter that takes the number of steps; by default one of ``STEPS``.
        axes: order of the axes of the result, one of ``AXES``; by default found by a call.
        gets: ``images`` [B, C, H, W], or ``sequence`` [T, B, C, H, W]: the image at every step.
        options: values for parameters of the callable, as text.

    Raises:
        ValueError: the callable refuses its arguments, or how to call it cannot be found out.
    """

    thing: Callable[..., Any]
    text: str
    label: str
    foreign_code: str

    def __init__(
        self, setting: Setting, *, T: str = "", axes: str = "", gets: str = "images", **options: str
    ) -> None:
        super().__init__(setting)
        if axes and axes not in AXES:
            raise ValueError(unknown("axes", axes, AXES))
        if gets not in ("images", "sequence"):
            raise ValueError(unknown("gets", gets, ("images", "sequence")))
        self.gets = gets
        known = _declared(self.thing)
        self._prepare({name: text for name, text in options.items() if text != known[name]}, T)
        shape = (self.num_steps + 2, setting.task.channels, *_PROBED)  # not T images: see axes
        noise = torch.rand(shape, generator=Generator().manual_seed(0))
        self.axes = axes or self._found_axes(noise)
        with torch.no_grad():
            first, again, other = (
                self.spikes(noise, Generator().manual_seed(seed)) for seed in (1, 1, 2)
            )
        self.is_deterministic = torch.equal(first, other)
        self.emits = _emitted(torch.cat([first, again]))

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """Return what the callable gives, in the order [T, B, C, H, W] and the dtype of the images.

        One number is drawn from ``generator``, and seeds the global generators for the call.
        """
        with _seeded(generator, images.device):
            self._reset()
            if self.axes == "BCHW":
                code = torch.stack([self._call(images, generator) for _ in range(self.num_steps)])
            else:
                code = self._call(images, generator)
        order = {"BTCHW": (1, 0, 2, 3, 4), "BCHWT": (4, 0, 1, 2, 3)}.get(self.axes)
        return (code.permute(order) if order else code).to(images.dtype)

    def _prepare(self, given: dict[str, str], steps: str) -> None:
        """Build the object of a class; choose the arguments of every call."""
        self.encode, arguments = self.thing, given
        if inspect.isclass(self.thing):
            chosen = self._arguments(self.thing, given, steps)
            self.encode = self._explained(lambda: self.thing(**chosen))
            arguments, steps = {}, ""
        self.arguments = self._arguments(self.encode, arguments, steps, is_given_images=True)
        self.takes_generator = "generator" in _names(self.encode)

    def _arguments(
        self,
        call: Callable[..., Any],
        given: dict[str, str],
        steps: str,
        is_given_images: bool = False,
    ) -> dict[str, Any]:
        """Return the arguments of a call by name, with T where it belongs.

        Raises:
            ValueError: a required argument has no value.
        """
        arguments = {name: _value(text) for name, text in given.items()}
        if steps := steps or next((name for name in STEPS if name in _names(call)), ""):
            arguments[steps] = self.num_steps
        required = [p for p in _parameters(call)[is_given_images:] if p.default is p.empty]
        missing = [p.name for p in required if p.name not in (*arguments, "generator")]
        if missing:
            raise ValueError(
                f"{self.text} needs a value for {', '.join(missing)}: write "
                f"{self.label}[{missing[0]}=...], or call it in a function of your own"
            )
        return arguments

    def _call(self, images: Tensor, generator: Generator) -> Tensor:
        given = images if self.gets == "images" else images.expand(self.num_steps, *images.shape)
        extra = {"generator": generator} if self.takes_generator else {}
        code = self._explained(lambda: self.encode(given, **self.arguments, **extra))
        if not isinstance(code, Tensor):
            raise ValueError(f"{self.text} must return a tensor, got {type(code).__name__}")
        return code

    def _explained(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            raise ValueError(f"{self.text} cannot be called: {one_line(error)}") from error

    def _reset(self) -> None:
        for name in ("reset", "reset_mem"):
            if callable(reset := getattr(self.encode, name, None)):
                reset()
                return

    def _found_axes(self, noise: Tensor) -> str:
        """Return the order of axes of what the callable returns for the probe."""
        with torch.no_grad(), _seeded(Generator().manual_seed(0), noise.device):
            self._reset()
            shape = tuple(self._call(noise, Generator().manual_seed(0)).shape)
        steps, images = self.num_steps, tuple(noise.shape)
        expected = {
            "TBCHW": (steps, *images),
            "BTCHW": (images[0], steps, *images[1:]),
            "BCHWT": (*images, steps),
            "BCHW": images,
        }
        for axes, size in expected.items():
            if size == shape:
                return axes
        names = ", ".join(_names(self.thing)) or "none"
        raise ValueError(
            f"{self.text} returns shape {shape} for images {images} at T = {steps}, expected "
            f"{expected['TBCHW']}, another order of these axes, or one step: name the parameter "
            f"that takes T by [T=...] (it has {names}), or call it in a function of your own"
        )


@contextmanager
def _seeded(generator: Generator, device: torch.device) -> Iterator[None]:
    """Seed the global generators from one draw of ``generator``; restore them afterwards."""
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    states = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _declared(thing: Callable[..., Any]) -> dict[str, str]:
    """Return the parameters that brackets may set, with their defaults as text; "" if required."""
    found = {}
    for p in _parameters(thing)[not inspect.isclass(thing) :]:  # a function gets images first
        is_simple = p.default is p.empty or isinstance(p.default, bool | int | float | str)
        if is_simple and p.name not in STEPS:
            found[p.name] = "" if p.default is p.empty else _text(p.default)
    return found


def _parameters(call: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters that can be given by name, in order."""
    call = call.forward if isinstance(call, nn.Module) else call
    try:
        known = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have no signature
        return []
    return [p for p in known if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY)]


def _names(call: Callable[..., Any]) -> list[str]:
    return [p.name for p in _parameters(call)]


def _text(value: bool | int | float | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(text: str) -> Any:
    """Return the number or truth value that a text writes, or the text itself."""
    try:
        return ast.literal_eval(text.capitalize() if text in ("true", "false") else text)
    except (SyntaxError, ValueError):
        return text


def _emitted(code: Tensor) -> Any:
    """Return which of the declared kinds of values a code has."""
    values = code.unique()
    if ((values == 0) | (values == 1)).all():
        return "binary"
    if ((values == 0) | (values.abs() == 1)).all():
        return "signed"
    return "graded" if (code == 0).any() else "real"


def _code_of(text: str, thing: Callable[..., Any]) -> str:
    """Return 12 hex digits of the library's version and of the source file of the callable."""
    library = text.partition(":")[0].partition(".")[0]
    try:
        version = metadata.version(library)
    except (metadata.PackageNotFoundError, ValueError):
        version = ""
    try:
        source = Path(inspect.getfile(thing)).read_bytes()
    except (TypeError, OSError):
        source = b""
    return hashlib.sha256(version.encode() + b"\0" + source).hexdigest()[:12]
