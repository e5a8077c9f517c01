"""Checks of the values that a plug-in emits: their class, finite, and informative."""

import torch
from torch import Tensor

from codingbench.backbone import Network
from codingbench.cells.probe import generator_of
from codingbench.conformance.check import Failed, check
from codingbench.conformance.images import Images
from codingbench.conformance.plugin import PluginUnderTest
from codingbench.encoder import Encoder
from codingbench.errors import one_line

_RARE = 0.01  # a code with a smaller share of zeros is real, not graded


@check(
    "emits",
    "exactly the class of values that it declares",
    "its code would look cheaper or more expensive than it is",
    kinds=("encoder",),
    needs=("runs", "steps"),
)
def emits(tested: PluginUnderTest) -> str:
    """Compare ``emits`` with the narrowest class that holds all values of the code."""
    encoder: Encoder = tested.network().encoder
    seen = _true_class(tested)
    if encoder.emits != seen:
        raise Failed(f"declares {encoder.emits!r}, but emits {seen!r}")
    return seen


def _true_class(tested: PluginUnderTest) -> str:
    """Return the narrowest class of values of the code."""
    codes = torch.cat([_codes(tested, num_steps).flatten() for num_steps in (4, 8)])
    if ((codes == 0) | (codes == 1)).all():
        return "binary"
    if ((codes.abs() == 1) | (codes == 0)).all():
        return "signed"
    return "graded" if _silent_share(tested) > _RARE else "real"


def _codes(tested: PluginUnderTest, num_steps: int) -> Tensor:
    """Return codes of images, of their negatives and of noise, so that rare values occur."""
    try:
        network = tested.network(num_steps=num_steps)
    except ValueError:
        network = tested.network()  # the plug-in refuses that T
    photos = tested.images(8)
    images = torch.cat([photos, 1 - photos, tested.scene.extremes()["noise"]])
    return tested.output(network, images)


def _silent_share(tested: PluginUnderTest) -> float:
    """Return the share of zeros in the code of images without black pixels."""
    code = tested.output(tested.network(), 0.05 + 0.9 * tested.images(8))
    return float((code == 0).float().mean())


@check(
    "finite",
    "finite values for black, white, grey and noise",
    "one such image would stop a training, or silence the network for its batch",
)
def finite(tested: PluginUnderTest) -> str:
    """Run images for which careless codings divide by zero."""
    network, extremes = tested.network(), tested.scene.extremes()
    together = torch.cat([*extremes.values()])
    for name, images in (extremes | {"all in one batch": together}).items():
        _check_finite(tested, network.eval(), images, name)
    _check_finite(tested, network.train(), together, "all in one batch, in training mode")
    return f"finite for {', '.join(extremes)}"


def _check_finite(tested: PluginUnderTest, network: Network, images: Images, name: str) -> None:
    try:
        with torch.no_grad():
            is_finite = tested.forward(network, images, generator_of()).isfinite().all()
    except ValueError as error:  # raised by the base class of encoders in evaluation mode
        raise Failed(f"{name}: {one_line(error)}") from error
    if not is_finite:
        raise Failed(f"{name}: the result contains NaN or infinity")


@check(
    "distinct results",
    "different images give different results",
    "accuracy would stay at chance level, without an error that explains it",
    needs=("runs", "finite"),
)
def distinct_results(tested: PluginUnderTest) -> str:
    """Count the distinct results of different images."""
    images = torch.cat([tested.images(8), *tested.scene.extremes().values()])
    out = tested.output(tested.network(), images).transpose(0, 1).flatten(1)
    distinct = len(out.unique(dim=0))
    if distinct == 1:
        raise Failed(f"{len(images)} images give the same result")
    return f"{distinct} of {len(images)} results are distinct"
