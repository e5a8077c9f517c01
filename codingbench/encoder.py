"""The contract of input codings: an encoder turns images into the backbone's input over T steps.

    images [B, C, H, W] in [0, 1]  ->  currents or spikes [T, B, S, H', W']

The stem, a convolution to S channels with batch normalisation, belongs to the backbone, so that all
codings are compared with the same stem. There are two kinds of encoders:

- A :class:`PixelEncoder` codes the pixels as spikes; the stem is then applied to every step. A code
  may have several channels for each channel of the image, for which the stem gets more inputs.
- A :class:`FeatureEncoder` applies the stem once to the standardised image and codes its output.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from codingbench.neurons import over_time
from codingbench.neurons.layout import as_device_prefers
from codingbench.registry import Plugin

Emits = Literal["binary", "signed", "graded", "real"]
"""Values that an encoder emits:

- ``binary``: spikes, each value is 0 or 1.
- ``signed``: spikes with a sign, each value is -1, 0 or 1.
- ``graded``: spikes of any size, a real number where there is a spike and 0 elsewhere.
- ``real``: currents, any real numbers.
"""


@dataclass(frozen=True)
class Task:
    """The classification task: the number of time steps, the classes and the images."""

    num_steps: int
    """Number of time steps T, at least 1."""
    num_classes: int
    channels: int
    """Channels of the images: 1 for grey, 3 for colour."""
    height: int
    """Height of the images in pixels."""
    width: int
    """Width of the images in pixels."""
    mean: tuple[float, ...]
    """Mean of each channel over the pixels of the training images, which are in [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation of each channel over the same pixels."""


@dataclass(frozen=True)
class Setting:
    """The argument of an encoder's constructor: the task and parts of the backbone."""

    task: Task
    stem: nn.Module
    """The backbone's stem, from images [B, C, H, W] to features [B, S, H', W']."""
    stem_channels: int
    """Number of channels S of the features."""
    make_neuron: Callable[[], nn.Module]
    """Create a spiking neuron of the backbone's kind: currents [T, ...] to spikes [T, ...]."""

    @property
    def stem_shape(self) -> tuple[int, int, int]:
        """The shape [S, H', W'] of what the stem puts out for one image.

        Shapes are followed through the stem without computing anything, so neither its statistics
        nor any random numbers change.
        """
        stem = copy.deepcopy(self.stem).to("meta").eval()
        images = torch.empty(
            1, self.task.channels, self.task.height, self.task.width, device="meta"
        )
        with torch.no_grad():
            _, channels, height, width = stem(images).shape
        return channels, height, width


class Code(nn.Identity):
    """Return the encoder's output unchanged. Counters attach here to measure the code."""


class Encoder(nn.Module):
    """Base class of both kinds of encoders; derive from one of the two below.

    A coding declares two class attributes, which ``codingbench check`` verifies. The code of an
    image must not depend on the other images of the batch.

    Raises:
        ValueError: from a constructor that cannot work with this setting or these parameters; the
            message says why.
    """

    emits: Emits
    """The values it emits, one of :data:`Emits`."""
    is_deterministic: bool = True
    """True if the same images always give the same code, whatever the generator."""
    channels: int = 1
    """Number of channels of the code for each channel of the image, at least 1. The stem reads
    C x ``channels`` channels. It may be set in the constructor, if it depends on a parameter. Only
    for :class:`PixelEncoder`: the code of a feature encoder has the stem's channels."""
    deferred_checks: list[Tensor] | None = None
    """Set by :func:`deferring_checks`: collects whether codes are finite, to be read later."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.num_steps = setting.task.num_steps
        self.stem = setting.stem
        self.code = Code()

    def forward(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Encode a batch of raw images in [0, 1]; draw all random numbers from ``generator``."""
        raise NotImplementedError(
            f"{type(self).__name__} must derive from PixelEncoder or FeatureEncoder, "
            "or define forward(images, generator)"
        )

    def _checked(self, code: object, shape: tuple[int, ...]) -> Tensor:
        """Return the code after checking that it is floating, finite and of shape [T, *shape]."""
        expected, name = (self.num_steps, *shape), type(self).__name__
        if not isinstance(code, Tensor):
            raise TypeError(f"{name} must return its code as a tensor, got {type(code).__name__}")
        if not code.is_floating_point():
            dtypes = f"a floating-point dtype such as torch.float32, got {code.dtype}"
            raise TypeError(f"{name} must emit {dtypes}")
        if code.shape != expected:
            raise ValueError(f"{name} must emit shape {expected}, got {tuple(code.shape)}")
        # A neuron never spikes on NaN, so no loss would show it. Only evaluation checks: it follows
        # every epoch, and the check makes a GPU wait. aminmax finds NaN and infinity in one pass
        # over memory, because both propagate to the extremes.
        if not self.training:
            is_finite = torch.stack(torch.aminmax(code)).isfinite().all()
            if self.deferred_checks is not None:
                self.deferred_checks.append(is_finite)
            elif not is_finite:
                raise self.not_finite()
        coded: Tensor = self.code(code)
        return coded

    def not_finite(self) -> ValueError:
        """Return the error of an encoder that emitted NaN or infinity."""
        name = type(self).__name__
        return ValueError(f"{name} must emit finite numbers, got NaN or infinity")


@contextmanager
def deferring_checks(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the checks for finite codes inside the context, instead of waiting for the device.

    The list gets one boolean tensor for each code that is emitted in evaluation mode.
    """
    encoders = [module for module in network.modules() if isinstance(module, Encoder)]
    checks: list[Tensor] = []
    for encoder in encoders:
        encoder.deferred_checks = checks
    try:
        yield checks
    finally:
        for encoder in encoders:
            encoder.deferred_checks = None


class PixelEncoder(Encoder):
    """Base class of codings that turn raw pixels into spikes; override :meth:`spikes`.

    The stem is then applied to the spikes of every step. With :attr:`channels` = n the code has the
    shape [T, B, n C, H, W], and the stem has n C inputs.
    """

    worth: Tensor | None

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.register_buffer("worth", None, False)

    def weigh(self, worth: Sequence[float]) -> None:
        """Scale the current of step t by ``worth[t]``: it becomes ``worth[t] stem(spikes[t])``.

        For codes in which a spike's meaning depends on when it occurs, such as phase coding. Call
        it in the constructor.

        Args:
            worth: T numbers, one for each step.

        Raises:
            ValueError: there are more or fewer numbers than steps.
        """
        if len(worth) != self.num_steps:
            expected = f"one number per step: expected {self.num_steps}, got {len(worth)}"
            raise ValueError(f"weigh() of {type(self).__name__} needs {expected}")
        self.worth = torch.tensor(worth).reshape(-1, 1, 1, 1, 1)

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch code height width"]:
        """Return the spikes of every step, for C ``channels`` channels of the code.

        Args:
            images: raw images, values in [0, 1].
            generator: source of all random numbers, on the device of the images.
        """
        raise NotImplementedError(f"{type(self).__name__} must define spikes(images, generator)")

    def drive(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch code height width"]:
        """Return the differentiable numbers that decide on the spikes of each channel of the code.

        Attacks pass gradients through it (:mod:`codingbench.robustness.gradients`). The default is
        the pixel itself; a code with :attr:`channels` of its own overrides it.
        """
        return images if self.channels == 1 else images.repeat(1, self.channels, 1, 1)

    def forward(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Return the current ``stem(spikes[t])`` of every step, scaled as :meth:`weigh` says.

        Raises:
            TypeError: the spikes are not a floating-point tensor.
            ValueError: the spikes have another shape than [T, B, C x channels, H, W] or, in
                evaluation, are not finite.
        """
        batch, channels, height, width = images.shape
        shape = (batch, channels * self.channels, height, width)
        code = self._checked(self.spikes(images, generator), shape)
        cur = over_time(self.stem, as_device_prefers(code))
        if self.worth is None:
            return cur
        # A copy: the counter assumes that a product with a buffer can be folded into the weights,
        # but these factors change over time.
        return cur * self.worth.to(cur.dtype, copy=True)


class FeatureEncoder(Encoder):
    """Base class of codings of the stem's features; override :meth:`encode`.

    The image is standardised, (x - mean) / std per channel, and the stem is applied to it once for
    all steps.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        shape = (1, -1, 1, 1)
        self.register_buffer("mean", torch.tensor(setting.task.mean).reshape(shape), False)
        self.register_buffer("std", torch.tensor(setting.task.std).reshape(shape), False)

    def encode(
        self, features: Float[Tensor, "batch stem rows columns"]
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Return the code of the features for every step: spikes or currents."""
        raise NotImplementedError(f"{type(self).__name__} must define encode(features)")

    def forward(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Return ``encode(stem((images - mean) / std))``; the generator is not used.

        Raises:
            TypeError: the code is not a floating-point tensor.
            ValueError: the code has another shape than [T, B, S, H', W'] or, in evaluation, is not
                finite.
        """
        features: Tensor = self.stem((images - self.mean) / self.std)
        return self._checked(self.encode(features), features.shape)


def build_encoder(plugin: Plugin, setting: Setting) -> Encoder:
    """Build an encoder, and check that it is complete and declares the values it emits.

    Raises:
        ValueError: the encoder refuses the setting, declares no valid ``emits`` or ``channels``, or
            its constructor does not call ``super().__init__(setting)``.
    """
    name = plugin.cls.__name__
    try:
        encoder: Encoder = plugin.build(setting)
    except AttributeError as error:  # from code that uses what the base class would have set
        if not _is_initialised(error.obj) or "before Module.__init__()" in str(error):
            raise _not_initialised(name) from error
        raise
    if not _is_initialised(encoder):
        raise _not_initialised(name)
    channels, is_pixel = encoder.channels, isinstance(encoder, PixelEncoder)
    if not isinstance(channels, int) or channels < 1:
        raise ValueError(f"channels of {name} must be a whole number from 1 on, got {channels!r}")
    if channels != 1 and not is_pixel:
        only = "only a PixelEncoder has channels of its own"
        raise ValueError(f"{name} must have channels = 1, got {channels}: {only}")
    emits, known = getattr(encoder, "emits", None), get_args(Emits)
    if emits not in known:
        got = "" if emits is None else f", got {emits!r}"
        raise ValueError(f"{name} must declare emits: one of {', '.join(known)}{got}")
    return encoder


def _is_initialised(thing: object) -> bool:
    """Return False for an encoder whose base class has not been initialised."""
    return not isinstance(thing, Encoder) or "code" in vars(thing).get("_modules", {})


def _not_initialised(name: str) -> ValueError:
    return ValueError(f"the constructor of {name} must first call super().__init__(setting)")
