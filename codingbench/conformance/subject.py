"""A plug-in made ready to be checked: in a small network, with real images.

An encoder is looked at alone, where it emits its code; a backbone at its logits. Batch
normalisation has the statistics of the images, without which deep neurons would be silent.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from codingbench.backbone import Backbone, Network, build_network, conv_bn
from codingbench.conformance.images import Images, Scene
from codingbench.encoder import FeatureEncoder
from codingbench.errors import SpecError, one_line
from codingbench.registry import BACKBONES, ENCODERS, Plugin

_BACKBONE = "csnn[width=4]"  # around an encoder
_ENCODER = "direct[spiking=false]"  # before a backbone: real currents, the most it can be given
_TO_CALIBRATE = 4  # images
_SCENES = (Scene(), Scene(3, 32, 32), Scene(3, 64, 64))  # looked at on the first that is accepted


class Subject(ABC):
    """A plug-in of either kind.

    Args:
        plugin: with its parameters.
        scenes: what it is looked at on is the first of these that it does not refuse.

    Raises:
        SpecError: it refuses its parameters, or all of the scenes.
    """

    kind: str

    def __init__(self, plugin: Plugin, scenes: tuple[Scene, ...]) -> None:
        self.plugin = plugin
        self.scene = self._accepted(scenes)
        self.others: tuple[Scene, ...] = ()  # that it must also take, or refuse

    @abstractmethod
    def assembled(self, scene: Scene, seed: int) -> Network:
        """A network with the plug-in in it."""

    @abstractmethod
    def module(self, network: Network) -> nn.Module:
        """The plug-in in a network."""

    @abstractmethod
    def given(self, network: Network, images: Images) -> Tensor:
        """What the plug-in gets: the images themselves, or currents [T, B, S, H', W']."""

    @abstractmethod
    def run(self, network: Network, given: Tensor, generator: Generator) -> Tensor:
        """What the plug-in makes of it: currents or logits [T, B, ...]."""

    @abstractmethod
    def output(self, network: Network, images: Images, seed: int = 0) -> Tensor:
        """What is looked at, without gradient: the code or the logits [T, B, ...]."""

    @abstractmethod
    def shape(self, network: Network, scene: Scene, batch: int) -> tuple[int, ...]:
        """What the contract asks of the shape of :meth:`forward`."""

    def forward(self, network: Network, images: Images, generator: Generator) -> Tensor:
        """What the plug-in makes of a copy of the images."""
        return self.run(network, self.given(network, images.clone()), generator)

    @abstractmethod
    def _warm_up(self, network: Network, images: Images) -> None:
        """Run what is before and in the plug-in once, so that normalisation sees the images."""

    def network(self, seed: int = 0, num_steps: int | None = None) -> Network:
        """A new network in evaluation mode, calibrated to the images.

        Raises:
            ValueError: the plug-in refuses that T.
        """
        scene = replace(self.scene, num_steps=num_steps or self.scene.num_steps)
        network = self.built(scene, seed)
        with global_seed(0):
            calibrate(network, lambda: self._warm_up(network, scene.images(_TO_CALIBRATE)))
        return network

    def built(self, scene: Scene, seed: int = 0, salt: int = 0) -> Network:
        """A new network in evaluation mode, as it is before any image; ``seed`` makes its weights,
        ``salt`` is the state of the global generators meanwhile.

        Raises:
            ValueError: the plug-in refuses the task or its parameters.
        """
        with global_seed(salt):
            return self.assembled(scene, seed).eval()

    def images(self, count: int, first: int = 0) -> Images:
        """Real images of the shape that the plug-in takes."""
        return self.scene.images(count, first)

    def _accepted(self, scenes: tuple[Scene, ...]) -> Scene:
        reasons = []
        for scene in scenes:
            try:
                self.built(scene)
            except ValueError as error:
                reasons.append(one_line(error))
            except Exception:
                return scene  # a fault, which the first check will name
            else:
                return scene
        raise SpecError(f"{self.plugin.label}: {reasons[0]}")


class EncoderSubject(Subject):
    """An encoder before a small backbone."""

    kind = "encoder"

    def __init__(self, plugin: Plugin) -> None:
        super().__init__(plugin, _SCENES)
        self.others = (Scene(3, 16, 16, num_steps=2, halves=True),)

    def assembled(self, scene: Scene, seed: int) -> Network:
        """A network with the plug-in in it."""
        around = BACKBONES.resolve(_BACKBONE)
        if scene.halves:
            around = replace(around, cls=_Halving, params=())
        return build_network(self.plugin, around, scene.task(), seed)

    def module(self, network: Network) -> nn.Module:
        """The encoder."""
        return network.encoder

    def given(self, network: Network, images: Images) -> Tensor:
        """The images."""
        return images

    def run(self, network: Network, given: Tensor, generator: Generator) -> Tensor:
        """Currents [T, B, S, H', W']."""
        currents: Tensor = network.encoder(given, generator)
        return currents

    def output(self, network: Network, images: Images, seed: int = 0) -> Tensor:
        """The code, or the currents of an encoder that does not show its code."""
        emitted: list[Tensor] = []
        handle = network.encoder.code.register_forward_hook(lambda m, i, out: emitted.append(out))
        with handle, torch.no_grad(), global_seed(seed):
            currents = self.forward(network, images, draws(seed))
        return emitted[-1] if emitted else currents

    def shape(self, network: Network, scene: Scene, batch: int) -> tuple[int, ...]:
        """[T, B] and the stem's shape."""
        with torch.no_grad():
            stem = network.encoder.stem(scene.images(batch)).shape
        return scene.num_steps, *stem

    def _warm_up(self, network: Network, images: Images) -> None:
        encoder = network.encoder
        if isinstance(encoder, FeatureEncoder):
            images = (images - encoder.mean) / encoder.std
        with torch.no_grad():
            encoder.stem(images)


class BackboneSubject(Subject):
    """A backbone behind the plainest coding; small images, because it may be large."""

    kind = "backbone"

    def __init__(self, plugin: Plugin) -> None:
        super().__init__(plugin, _SCENES)
        self.others = (self.scene,)
        self.scene = self._smaller(self.scene)

    def _smaller(self, scene: Scene) -> Scene:
        """A quarter of the pixels if the backbone runs on them."""
        small = replace(scene, height=scene.height // 2, width=scene.width // 2)
        try:
            self.output(self.built(small), small.images(1))
        except Exception:
            return scene
        return small

    def assembled(self, scene: Scene, seed: int) -> Network:
        """A network with the plug-in in it."""
        return build_network(ENCODERS.resolve(_ENCODER), self.plugin, scene.task(), seed)

    def module(self, network: Network) -> nn.Module:
        """The backbone."""
        return network.backbone

    def given(self, network: Network, images: Images) -> Tensor:
        """The currents of the plainest coding, which has no chance in it."""
        currents: Tensor = network.encoder(images, draws())
        return currents

    def run(self, network: Network, given: Tensor, generator: Generator) -> Tensor:
        """Logits [T, B, K]."""
        logits: Tensor = network.backbone(given)
        return logits

    def output(self, network: Network, images: Images, seed: int = 0) -> Tensor:
        """The logits."""
        with torch.no_grad(), global_seed(seed):
            return self.forward(network, images, draws(seed))

    def shape(self, network: Network, scene: Scene, batch: int) -> tuple[int, ...]:
        """[T, B, K]."""
        return scene.num_steps, batch, scene.num_classes

    def _warm_up(self, network: Network, images: Images) -> None:
        self.output(network, images)


class _Halving(Backbone):
    """Gives a stem of half the resolution, as backbones for large images do."""

    stem_channels = 6

    def make_stem(self, channels: int) -> nn.Module:
        return conv_bn(channels, self.stem_channels, kernel_size=7, stride=2)


def draws(seed: int = 0) -> Generator:
    """A generator of that seed."""
    return Generator().manual_seed(seed)


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Inside, the global generators begin at ``seed``; what they were at comes back after it."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def calibrate(module: nn.Module, run: Callable[[], None]) -> None:
    """Set the running statistics of batch normalisation to those of what ``run`` passes through."""
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = None  # the mean over all batches
        layer.train()
    run()
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
