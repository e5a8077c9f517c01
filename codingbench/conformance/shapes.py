"""Checks of what a plug-in takes and gives back: steps, sizes, channels, dtypes."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from codingbench.backbone import Backbone, Network
from codingbench.conformance.check import Failed, check
from codingbench.conformance.images import Scene
from codingbench.conformance.subject import Subject, draws
from codingbench.errors import one_line

_STEPS = range(1, 9)
_SIZES = (
    Scene(3, 32, 32, num_steps=2, num_classes=100),
    Scene(1, 8, 8, num_steps=2),
    Scene(2, 17, 12, num_steps=2, num_classes=2),
)


@check(
    "runs",
    "a batch passes at T = 4, in both modes",
    "every cell with it would fail",
    needs=(),
)
def runs(subject: Subject) -> str:
    """The plug-in runs at all."""
    images, network = subject.images(6), subject.network()
    with torch.no_grad():
        subject.forward(network, images, draws())
        out = subject.forward(network.train(), images, draws())
    return f"{list(images.shape)} to {list(out.shape)}"


@check(
    "steps",
    "the right shape for T = 1 to 8, or a refusal",
    "cells at that T would fail in the middle of a grid",
)
def steps(subject: Subject) -> str:
    """Every number of steps gives the contract's shape, or is refused when the plug-in is built."""
    scenes = {f"T={t}": replace(subject.scene, num_steps=t) for t in _STEPS}
    return _right_or_refused(subject, scenes, "T = 1 to 8")


@check(
    "sizes",
    "the right shape for other images, or a refusal",
    "other data sets and backbones would fail in the middle of a grid",
)
def sizes(subject: Subject) -> str:
    """Every size of images gives the contract's shape, or is refused when the plug-in is built."""
    scenes = [*_SIZES, *subject.others]
    return _right_or_refused(subject, {str(s): s for s in scenes}, ", ".join(map(str, scenes)))


def _right_or_refused(subject: Subject, scenes: dict[str, Scene], all_of_them: str) -> str:
    refusals = []
    for name, scene in scenes.items():
        try:
            network = subject.built(scene)
        except ValueError as error:
            if not str(error).strip():
                raise Failed(f"{name}: refused without a reason") from error
            refusals.append(f"{name} refused: {one_line(error)}")
            continue
        _check_shape(subject, network, scene, name)
    return "; ".join(refusals) or all_of_them


def _check_shape(subject: Subject, network: Network, scene: Scene, name: str) -> None:
    images = scene.images(3)
    expected = subject.shape(network, scene, len(images))
    try:
        with torch.no_grad():
            out = subject.forward(network, images, draws())
    except Exception as error:
        raise Failed(f"{name}: {one_line(error)}") from error
    if out.shape != expected:
        raise Failed(f"{name}: expected {list(expected)}, got {list(out.shape)}")


@check(
    "dtype",
    "float32 images give float32",
    "it would compute in another precision than it is compared in",
)
def dtype(subject: Subject) -> str:
    """What is looked at, and what is given back, is float32."""
    network, images = subject.network(), subject.images(3)
    with torch.no_grad():
        given = {subject.output(network, images).dtype}
        given.add(subject.forward(network, images, draws()).dtype)
    if given != {torch.float32}:
        raise Failed(f"got {_names(given)}")
    return "float32"


def _names(dtypes: Iterable[torch.dtype]) -> str:
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))


@check(
    "single image",
    "a batch of one image trains",
    "a cell would fail at the end of its first epoch, whose last batch may hold one image",
)
def single_image(subject: Subject) -> str:
    """One image passes in training mode."""
    with torch.no_grad():
        subject.forward(subject.built(subject.scene).train(), subject.images(1), draws())
    return "it does"


@check(
    "shown code",
    "the code passes through self.code",
    "its sparsity and spikes would be missing from every table",
    kinds=("encoder",),
)
def shown_code(subject: Subject) -> str:
    """The base class sees the code, once per batch."""
    passed: list[Tensor] = []
    network = subject.network()
    with network.encoder.code.register_forward_hook(lambda m, i, out: passed.append(out)):
        subject.output(network, subject.images(2))
    if len(passed) != 1:
        raise Failed(f"{len(passed)} codes for one batch")
    return "one code of " + str(list(passed[0].shape))


@check(
    "stem",
    "stems have stem_channels, neurons keep shapes",
    "codings would be built for another number of channels, or share what they learn",
    kinds=("backbone",),
)
def stem(subject: Subject) -> str:
    """What the backbone hands to encoders is what it says."""
    backbone = subject.built(subject.scene).backbone
    for channels in (1, 3):
        _check_stem(backbone, channels, subject.scene)
    cur = torch.randn(3, 2, backbone.stem_channels, 5, 5, generator=draws())
    with torch.no_grad():
        spk = backbone.make_neuron()(cur)
    if spk.shape != cur.shape:
        raise Failed(f"the neuron makes {list(spk.shape)} of {list(cur.shape)}")
    return f"{backbone.stem_channels} channels"


def _check_stem(backbone: Backbone, channels: int, scene: Scene) -> None:
    made: list[nn.Module] = [backbone.make_stem(channels) for _ in range(2)]
    if {*made[0].parameters()} & {*made[1].parameters()}:
        raise Failed("two stems share their parameters")
    features = made[0](replace(scene, channels=channels).images(2))
    if features.shape[:2] != (2, backbone.stem_channels) or features.dim() != 4:
        promised = f"stem_channels = {backbone.stem_channels}"
        raise Failed(f"{promised}, but 2 images give {list(features.shape)}")
