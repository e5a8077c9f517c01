"""A plug-in under test, in small untrained networks with real images.

Encoders are tested on the code that they emit, backbones on their logits. Batch norm has the
statistics of the images, because without them deep neurons would stay silent.
"""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from codingbench.backbone import Backbone, Network, conv_bn
from codingbench.cells.probe import Probe, generator_of, recorded_codes, seeded
from codingbench.conformance.images import Images, Scene
from codingbench.errors import SpecError, one_line
from codingbench.registry import BACKBONES, ENCODERS, Plugin

_BACKBONE = "csnn[width=4]"  # for tests of encoders
_ENCODER = "direct[spiking=false]"  # for tests of backbones: deterministic real-valued currents
_CALIBRATION_IMAGES = 4
_SCENES = (Scene(), Scene(3, 32, 32), Scene(3, 64, 64))  # the first that is accepted is used


class PluginUnderTest(ABC):
    """A plug-in of either kind, and the networks it is tested in.

    Args:
        plugin: plug-in with its parameters.
        scenes: tasks to test it on; the first that it accepts is used.

    Raises:
        SpecError: the plug-in refuses its parameters, or all of the scenes.
    """

    kind: str

    def __init__(self, plugin: Plugin, scenes: tuple[Scene, ...]) -> None:
        self.plugin = plugin
        self.scene = self._accepted(scenes)
        self.more_scenes: tuple[Scene, ...] = ()  # it must accept these too, or refuse them

    @abstractmethod
    def pair(self, scene: Scene) -> tuple[Plugin, Plugin]:
        """Return the encoder and the backbone of the network, one of which is the plug-in."""

    @abstractmethod
    def module(self, network: Network) -> nn.Module:
        """Return the plug-in's module in a network."""

    @abstractmethod
    def inputs(self, network: Network, images: Images) -> Tensor:
        """Return the input of the plug-in: the images, or currents [T, B, S, H', W']."""

    @abstractmethod
    def run(self, network: Network, inputs: Tensor, generator: Generator) -> Tensor:
        """Return what the plug-in computes from its input: currents or logits [T, B, ...]."""

    @abstractmethod
    def output(self, network: Network, images: Images, seed: int = 0) -> Tensor:
        """Return the tested values without gradient: the code, or the logits [T, B, ...]."""

    @abstractmethod
    def expected_shape(self, network: Network, scene: Scene, batch: int) -> tuple[int, ...]:
        """Return the shape of :meth:`forward` that the contract demands."""

    @abstractmethod
    def _warm_up(self, probe: Probe, images: Images) -> None:
        """Run the layers up to and including the plug-in once, to calibrate their batch norms."""

    def forward(self, network: Network, images: Images, generator: Generator) -> Tensor:
        """Return what the plug-in computes from a copy of the images."""
        return self.run(network, self.inputs(network, images.clone()), generator)

    @staticmethod
    def stem_input(network: Network, images: Images) -> Tensor:
        """Return a tensor that the stem of the network's encoder takes, for as many images."""
        return images.repeat(1, network.encoder.channels, 1, 1)

    def network(self, seed: int = 0, num_steps: int | None = None) -> Network:
        """Return a new network in evaluation mode, calibrated to the images.

        Raises:
            ValueError: the plug-in refuses that number of steps.
        """
        scene = replace(self.scene, num_steps=num_steps or self.scene.num_steps)
        probe = self._probe(scene, seed)
        with seeded(0):
            probe.calibrate(lambda: self._warm_up(probe, scene.images(_CALIBRATION_IMAGES)))
        return probe.network

    def build(self, scene: Scene, global_seed: int = 0) -> Network:
        """Return a new network in evaluation mode that has not seen any image.

        Args:
            scene: task to build it for.
            global_seed: state of the global random generators meanwhile.

        Raises:
            ValueError: the plug-in refuses the task or its parameters.
        """
        return self._probe(scene, seed=0, global_seed=global_seed).network

    def images(self, count: int, first: int = 0) -> Images:
        """Return real images of the shape that the plug-in accepts."""
        return self.scene.images(count, first)

    def _probe(self, scene: Scene, seed: int, global_seed: int = 0) -> Probe:
        encoder, backbone = self.pair(scene)
        return Probe(encoder, backbone, scene.task(), seed, global_seed)

    def _accepted(self, scenes: tuple[Scene, ...]) -> Scene:
        reasons = []
        for scene in scenes:
            try:
                self.build(scene)
            except ValueError as error:
                reasons.append(one_line(error))
            except Exception:
                return scene  # a fault of the plug-in, which the first check will report
            else:
                return scene
        raise SpecError(f"{self.plugin.label}: {reasons[0]}")


class EncoderUnderTest(PluginUnderTest):
    """An encoder in front of a small backbone."""

    kind = "encoder"

    def __init__(self, plugin: Plugin) -> None:
        super().__init__(plugin, _SCENES)
        self.more_scenes = (Scene(3, 16, 16, num_steps=2, halves=True),)

    def pair(self, scene: Scene) -> tuple[Plugin, Plugin]:
        """Return the encoder and a small backbone."""
        backbone = BACKBONES.resolve(_BACKBONE)
        if scene.halves:
            backbone = replace(backbone, cls=_HalvingBackbone, params=())
        return self.plugin, backbone

    def module(self, network: Network) -> nn.Module:
        """Return the encoder."""
        return network.encoder

    def inputs(self, network: Network, images: Images) -> Tensor:
        """Return the images."""
        return images

    def run(self, network: Network, inputs: Tensor, generator: Generator) -> Tensor:
        """Return currents [T, B, S, H', W']."""
        currents: Tensor = network.encoder(inputs, generator)
        return currents

    def output(self, network: Network, images: Images, seed: int = 0) -> Tensor:
        """Return the code, or the currents of an encoder whose code bypasses ``self.code``."""
        with torch.no_grad(), seeded(seed), recorded_codes(network.encoder) as codes:
            currents = self.forward(network, images, generator_of(seed))
        return codes[-1] if codes else currents

    def expected_shape(self, network: Network, scene: Scene, batch: int) -> tuple[int, ...]:
        """Return T and the shape of the stem's output."""
        with torch.no_grad():
            stem = network.encoder.stem(self.stem_input(network, scene.images(batch))).shape
        return scene.num_steps, *stem

    def _warm_up(self, probe: Probe, images: Images) -> None:
        probe.stem_features(images)


class BackboneUnderTest(PluginUnderTest):
    """A backbone behind constant currents; on small images, because it may be large."""

    kind = "backbone"

    def __init__(self, plugin: Plugin) -> None:
        super().__init__(plugin, _SCENES)
        self.more_scenes = (self.scene,)
        self.scene = self._smaller(self.scene)

    def _smaller(self, scene: Scene) -> Scene:
        """Return the scene with a quarter of the pixels if the backbone runs on it."""
        small = replace(scene, height=scene.height // 2, width=scene.width // 2)
        try:
            self.output(self.build(small), small.images(1))
        except Exception:
            return scene
        return small

    def pair(self, scene: Scene) -> tuple[Plugin, Plugin]:
        """Return an encoder of constant currents and the backbone."""
        return ENCODERS.resolve(_ENCODER), self.plugin

    def module(self, network: Network) -> nn.Module:
        """Return the backbone."""
        return network.backbone

    def inputs(self, network: Network, images: Images) -> Tensor:
        """Return currents, which are deterministic."""
        currents: Tensor = network.encoder(images, generator_of())
        return currents

    def run(self, network: Network, inputs: Tensor, generator: Generator) -> Tensor:
        """Return logits [T, B, K]."""
        logits: Tensor = network.backbone(inputs)
        return logits

    def output(self, network: Network, images: Images, seed: int = 0) -> Tensor:
        """Return logits [T, B, K]."""
        with torch.no_grad(), seeded(seed):
            return self.forward(network, images, generator_of(seed))

    def expected_shape(self, network: Network, scene: Scene, batch: int) -> tuple[int, ...]:
        """Return [T, B, K]."""
        return scene.num_steps, batch, scene.num_classes

    def _warm_up(self, probe: Probe, images: Images) -> None:
        self.output(probe.network, images)


class _HalvingBackbone(Backbone):
    """Has a stem that halves the resolution, as backbones for large images do."""

    stem_channels = 6

    def make_stem(self, channels: int) -> nn.Module:
        return conv_bn(channels, self.stem_channels, kernel_size=7, stride=2)
