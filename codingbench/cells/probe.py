"""Run a plug-in in an untrained network: shared by ``codingbench check`` and ``inspect``.

Both build a plug-in's network on a task, set the statistics of its batch norm to those of real
images, run it with seeded random numbers and read the code that an encoder emits.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from codingbench.backbone import Network, build_network
from codingbench.encoder import Encoder, FeatureEncoder, PixelEncoder, Task
from codingbench.registry import Plugin


class Front(nn.Module):
    """The part of a network up to the encoder; its layers have the same names as in the network."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor, generator: Generator) -> Tensor:
        """Return the input of the backbone."""
        currents: Tensor = self.encoder(images, generator)
        return currents


class Probe:
    """An untrained network of two plug-ins on a task, in evaluation mode.

    Args:
        encoder: encoder with its parameters.
        backbone: backbone with its parameters.
        task: task that both are built for.
        seed: seed of the initial weights.
        global_seed: state of the global random generators while the network is built.

    Raises:
        ValueError: a plug-in refuses the task or one of its parameters.
    """

    def __init__(
        self, encoder: Plugin, backbone: Plugin, task: Task, seed: int = 0, global_seed: int = 0
    ) -> None:
        with seeded(global_seed):
            self.network: Network = build_network(encoder, backbone, task, seed).eval()
        self.front = Front(self.network.encoder).eval()

    @property
    def encoder(self) -> Encoder:
        """The encoder of the network."""
        encoder: Encoder = self.network.encoder
        return encoder

    def stem_features(self, images: Tensor) -> Tensor:
        """Return the output of the stem for images [B, C, H, W] in [0, 1].

        Feature encoders standardise the images first. The stem of a pixel encoder gets what drives
        its spikes: the images, or a channel for each of its cells.
        """
        encoder = self.encoder
        with torch.no_grad():
            features: Tensor = encoder.stem(_stem_input(encoder, images))
        return features

    def coded(self, images: Tensor) -> Tensor:
        """Return the tensor that the encoder codes: the images, or the features of the stem."""
        return self.stem_features(images) if isinstance(self.encoder, FeatureEncoder) else images

    def code(self, images: Tensor, generator: Generator) -> Tensor | None:
        """Return the code [T, B, ...] for images in [0, 1]; None if it bypasses ``self.code``."""
        with torch.no_grad(), recorded_codes(self.encoder) as codes:
            self.front(images, generator)
        return codes[-1] if codes else None

    def calibrate(self, run: Callable[[], object]) -> None:
        """Set the statistics of all batch norms to those of the data that ``run`` feeds them.

        An untrained batch norm has mean 0 and variance 1, with which deep neurons may stay silent.
        Batch norms that ``run`` does not reach keep their statistics.
        """
        norms = [layer for layer in self.network.modules() if isinstance(layer, _BatchNorm)]
        momenta = [layer.momentum for layer in norms]
        for layer in norms:
            layer.momentum = None  # average over all batches
            layer.train()
        run()
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()


def _stem_input(encoder: Encoder, images: Tensor) -> Tensor:
    if isinstance(encoder, FeatureEncoder):
        return (images - encoder.mean) / encoder.std
    return encoder.drive(images) if isinstance(encoder, PixelEncoder) else images


@contextmanager
def recorded_codes(encoder: Encoder) -> Iterator[list[Tensor]]:
    """Within this context, append every code that the encoder emits to the yielded list."""
    codes: list[Tensor] = []
    with encoder.code.register_forward_hook(lambda module, args, code: codes.append(code)):
        yield codes


def generator_of(seed: int = 0) -> Generator:
    """Return a CPU generator with that seed."""
    return Generator().manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this context, the global generators start from ``seed``; then they are restored."""
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
