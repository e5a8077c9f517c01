"""The contract of an input coding: images in [0, 1] to what the backbone sees over T steps.

    images [B, C, H, W]  ->  currents or spikes [T, B, S, H', W']

The stem (conv-BN, S channels) comes from the backbone, so that every coding is compared with the
same one. A :class:`PixelEncoder` codes the pixels and the stem is applied to every step; a
:class:`FeatureEncoder` codes the stem's features, and the stem is applied once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from codingbench.neurons import over_time
from codingbench.neurons.layout import as_device_prefers

Emits = Literal["binary", "signed", "graded", "real"]
"""binary {0, 1}; signed {-1, 0, 1}; graded: real where a spike is, else 0; real: currents."""


@dataclass(frozen=True)
class Task:
    """What is to be classified, in how many steps."""

    num_steps: int  # T >= 1
    num_classes: int
    channels: int
    height: int
    width: int
    mean: tuple[float, ...]  # per channel, of the training images in [0, 1]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Setting:
    """What an encoder is given: the task, and the front of the backbone."""

    task: Task
    stem: nn.Module  # [B, C, H, W] -> [B, S, H', W']
    stem_channels: int  # S
    make_neuron: Callable[[], nn.Module]  # a neuron of the backbone's kind, [T, ...] -> [T, ...]


class Code(nn.Identity):
    """Passes on what the encoder emits; the place where the code itself is measured."""


class Encoder(nn.Module):
    """Base of both kinds; a coding derives from one of the two below.

    Declared by each coding, and held to it by the contract tests:
    ``emits``: the values it emits, one of :data:`Emits`.
    ``is_deterministic``: the same images give the same code whatever the generator.
    """

    emits: Emits
    is_deterministic: bool = True

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.num_steps = setting.task.num_steps
        self.stem = setting.stem
        self.code = Code()

    def forward(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Code a batch of raw images; all randomness is drawn from ``generator``."""
        raise NotImplementedError("derive from PixelEncoder or FeatureEncoder")

    def _checked(self, code: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The code, if it is of shape [T, ...] and finite, as the contract says."""
        expected, name = (self.num_steps, *shape), type(self).__name__
        if code.shape != expected:
            raise ValueError(f"{name} must emit shape {expected}, got {tuple(code.shape)}")
        # A neuron never spikes on NaN, so no loss would show it. Evaluation alone looks: it comes
        # after every epoch, and a look makes a GPU wait. NaN and infinity reach the extremes, which
        # one pass over memory finds.
        if not self.training and not torch.stack(torch.aminmax(code)).isfinite().all():
            raise ValueError(f"{name} must emit finite numbers, got NaN or infinity")
        coded: Tensor = self.code(code)
        return coded


class PixelEncoder(Encoder):
    """Codes raw pixels as spikes; the stem is applied to every step."""

    worth: Tensor | None

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.register_buffer("worth", None, False)

    def weigh(self, worth: Sequence[float]) -> None:
        """The receiver knows what a step says: its current is ``worth[t] stem(spikes[t])``.

        For a code whose spikes are all alike and mean more at one step than at another; called by
        its constructor. ``worth`` has T numbers.
        """
        self.worth = torch.tensor(worth).reshape(-1, 1, 1, 1, 1)

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch channel height width"]:
        """The spikes of the images, whose values are in [0, 1]."""
        raise NotImplementedError

    def forward(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """Currents: ``stem(spikes[t])`` for every t, weighed if the coding says so."""
        code = self._checked(self.spikes(images, generator), images.shape)
        cur = over_time(self.stem, as_device_prefers(code))
        if self.worth is None:
            return cur
        # a copy: the counter takes what is multiplied with a buffer for folded into weights, and
        # weights that change over time are no such thing
        return cur * self.worth.to(cur.dtype, copy=True)


class FeatureEncoder(Encoder):
    """Codes the stem's features of the standardised image, computed once for all steps."""

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
        """The code of the features."""
        raise NotImplementedError

    def forward(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch stem rows columns"]:
        """``encode(stem((images - mean) / std))``; the generator is not used."""
        features: Tensor = self.stem((images - self.mean) / self.std)
        return self._checked(self.encode(features), features.shape)
