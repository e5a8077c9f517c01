"""Checks of the shapes and types of inputs and outputs: steps, sizes, channels, dtypes."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from codingbench.backbone import Backbone, Network
from codingbench.cells.probe import generator_of, recorded_codes
from codingbench.conformance.check import Failed, check
from codingbench.conformance.images import Scene
from codingbench.conformance.plugin import PluginUnderTest
from codingbench.errors import one_line

_STEPS = range(1, 9)
_SIZES = (
    Scene(3, 32, 32, num_steps=2, num_classes=100),
    Scene(1, 8, 8, num_steps=2),
    Scene(2, 17, 12, num_steps=2, num_classes=2),
)


@check(
    "runs",
    "runs on a batch at T = 4, in both modes",
    "every cell that uses it would fail",
    needs=(),
)
def runs(tested: PluginUnderTest) -> str:
    """Run a batch in evaluation and in training mode."""
    images, network = tested.images(6), tested.network()
    with torch.no_grad():
        tested.forward(network, images, generator_of())
        out = tested.forward(network.train(), images, generator_of())
    return f"shape {list(images.shape)} gives {list(out.shape)}"


@check(
    "steps",
    "the correct shape for T = 1 to 8, or a refusal",
    "cells with another T would fail in the middle of a grid",
)
def steps(tested: PluginUnderTest) -> str:
    """Build and run the plug-in for each T; it may refuse one with a reason when it is built."""
    scenes = {f"T={t}": replace(tested.scene, num_steps=t) for t in _STEPS}
    return _correct_or_refused(tested, scenes, "T = 1 to 8")


@check(
    "sizes",
    "the correct shape for other images, or a refusal",
    "cells with other data sets or backbones would fail in the middle of a grid",
)
def sizes(tested: PluginUnderTest) -> str:
    """Build and run the plug-in for other image sizes; it may refuse one with a reason."""
    scenes = [*_SIZES, *tested.more_scenes]
    return _correct_or_refused(tested, {str(s): s for s in scenes}, ", ".join(map(str, scenes)))


def _correct_or_refused(tested: PluginUnderTest, scenes: dict[str, Scene], all_names: str) -> str:
    refusals = []
    for name, scene in scenes.items():
        try:
            network = tested.build(scene)
        except ValueError as error:
            if not str(error).strip():
                raise Failed(f"{name} is refused without a reason") from error
            refusals.append(f"{name} refused: {one_line(error)}")
            continue
        _check_shape(tested, network, scene, name)
    return "; ".join(refusals) or f"correct for {all_names}"


def _check_shape(tested: PluginUnderTest, network: Network, scene: Scene, name: str) -> None:
    images = scene.images(3)
    expected = tested.expected_shape(network, scene, len(images))
    try:
        with torch.no_grad():
            out = tested.forward(network, images, generator_of())
    except Exception as error:
        raise Failed(f"{name} raises {one_line(error)}") from error
    if out.shape != expected:
        raise Failed(f"{name}: the shape must be {list(expected)}, got {list(out.shape)}")


@check(
    "dtype",
    "float32 images give float32",
    "its cells would compute in another precision than those they are compared with",
)
def dtype(tested: PluginUnderTest) -> str:
    """Look at the dtypes of the code and of the result."""
    network, images = tested.network(), tested.images(3)
    with torch.no_grad():
        dtypes = {tested.output(network, images).dtype}
        dtypes.add(tested.forward(network, images, generator_of()).dtype)
    if dtypes != {torch.float32}:
        raise Failed(f"gives {_names(dtypes)}")
    return "float32"


def _names(dtypes: Iterable[torch.dtype]) -> str:
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))


@check(
    "single image",
    "a batch of one image passes in training mode",
    "cells would fail at the last batch of an epoch, which may hold one image",
)
def single_image(tested: PluginUnderTest) -> str:
    """Run a batch of one image in training mode."""
    with torch.no_grad():
        tested.forward(tested.build(tested.scene).train(), tested.images(1), generator_of())
    return "passes"


@check(
    "shown code",
    "the code passes through self.code once per batch",
    "its sparsity and spikes would be missing from all tables",
    kinds=("encoder",),
)
def shown_code(tested: PluginUnderTest) -> str:
    """Count the codes that pass through ``self.code``."""
    network = tested.network()
    with recorded_codes(network.encoder) as codes:
        tested.output(network, tested.images(2))
    if len(codes) != 1:
        raise Failed(f"{len(codes)} codes passed for one batch")
    return f"one code of shape {list(codes[0].shape)}"


@check(
    "stem",
    "stems give stem_channels channels, neurons keep shapes",
    "codings would be built for the wrong number of channels, or share parameters",
    kinds=("backbone",),
)
def stem(tested: PluginUnderTest) -> str:
    """Look at the stem and the neurons that the backbone gives to encoders."""
    backbone = tested.build(tested.scene).backbone
    for channels in (1, 3):
        _check_stem(backbone, channels, tested.scene)
    cur = torch.randn(3, 2, backbone.stem_channels, 5, 5, generator=generator_of())
    with torch.no_grad():
        spk = backbone.make_neuron()(cur)
    if spk.shape != cur.shape:
        raise Failed(f"the neuron turns shape {list(cur.shape)} into {list(spk.shape)}")
    return f"{backbone.stem_channels} channels"


def _check_stem(backbone: Backbone, channels: int, scene: Scene) -> None:
    stems: list[nn.Module] = [backbone.make_stem(channels) for _ in range(2)]
    if {*stems[0].parameters()} & {*stems[1].parameters()}:
        raise Failed("two stems share their parameters")
    features = stems[0](replace(scene, channels=channels).images(2))
    if features.shape[:2] != (2, backbone.stem_channels) or features.dim() != 4:
        declared = f"stem_channels = {backbone.stem_channels}"
        raise Failed(f"{declared}, but 2 images give features of {list(features.shape)}")
