"""Checks of the values a plug-in emits: what kind, finite, and of any use."""

import torch
from torch import Tensor

from codingbench.backbone import Network
from codingbench.conformance.check import Failed, check
from codingbench.conformance.images import Images
from codingbench.conformance.subject import Subject, draws
from codingbench.encoder import Encoder
from codingbench.errors import one_line

_RARE = 0.01  # share of zeros below which a code of real numbers is not one of graded spikes


@check(
    "emits",
    "what it declares, no narrower and no looser",
    "readers would take its code for cheaper or dearer than it is",
    kinds=("encoder",),
    needs=("runs", "steps"),
)
def emits(subject: Subject) -> str:
    """``emits`` is the narrowest class that holds all values seen."""
    encoder: Encoder = subject.network().encoder
    seen = _true_class(subject)
    if encoder.emits != seen:
        raise Failed(f"declares {encoder.emits!r}, emits {seen}")
    return seen


def _true_class(subject: Subject) -> str:
    codes = torch.cat([_codes(subject, num_steps).flatten() for num_steps in (4, 8)])
    if ((codes == 0) | (codes == 1)).all():
        return "binary"
    if ((codes.abs() == 1) | (codes == 0)).all():
        return "signed"
    return "graded" if _silent_share(subject) > _RARE else "real"


def _codes(subject: Subject, num_steps: int) -> Tensor:
    """Of real images, their negatives and noise: rare values have their chance."""
    try:
        network = subject.network(num_steps=num_steps)
    except ValueError:
        network = subject.network()  # that T is refused
    photos = subject.images(8)
    images = torch.cat([photos, 1 - photos, subject.scene.extremes()["noise"]])
    return subject.output(network, images)


def _silent_share(subject: Subject) -> float:
    """Zeros in the code of images without black: they are the coding's own."""
    code = subject.output(subject.network(), 0.05 + 0.9 * subject.images(8))
    return float((code == 0).float().mean())


@check(
    "finite",
    "numbers for black, white, grey and noise",
    "one such image would end a training, or silence the network for a batch",
)
def finite(subject: Subject) -> str:
    """No image makes it divide by nothing."""
    network, extremes = subject.network(), subject.scene.extremes()
    together = torch.cat([*extremes.values()])
    for name, images in (extremes | {"all of them": together}).items():
        _check_finite(subject, network.eval(), images, name)
    _check_finite(subject, network.train(), together, "all of them, in training")
    return ", ".join(extremes)


def _check_finite(subject: Subject, network: Network, images: Images, name: str) -> None:
    try:
        with torch.no_grad():
            is_finite = subject.forward(network, images, draws()).isfinite().all()
    except ValueError as error:  # the base class of encoders looks in evaluation
        raise Failed(f"{name}: {one_line(error)}") from error
    if not is_finite:
        raise Failed(f"{name}: NaN or infinity")


@check(
    "tells apart",
    "different images give different results",
    "accuracy would be that of guessing, with no error to say why",
    needs=("runs", "finite"),
)
def tells_apart(subject: Subject) -> str:
    """The result depends on the image."""
    images = torch.cat([subject.images(8), *subject.scene.extremes().values()])
    out = subject.output(subject.network(), images).transpose(0, 1).flatten(1)
    distinct = len(out.unique(dim=0))
    if distinct == 1:
        raise Failed(f"{len(images)} images give one result")
    return f"{distinct} of {len(images)} results are distinct"
