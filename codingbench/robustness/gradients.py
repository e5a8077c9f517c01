"""Gradients of the loss with respect to the image, through any coding.

Pixel codes compare and round, so their derivative is 0: an attack that follows it changes nothing,
and the code looks robust although it is not ("gradient masking"). For codings without a gradient
this module uses the straight-through estimate of BPDA: the forward pass computes the true code, and
the backward pass uses

    d code[t] / d x = 1   at every step t, for spikes of either sign,

where x is what drives the code (``PixelEncoder.drive``: the pixel, except for codes with channels
of their own), and the output of the stem for feature encoders. Codings with neurons keep the
surrogate gradient that they were trained with. For random codings, the gradient of the mean loss
over several codes is used (expectation over transformation, EOT).

Source: Athalye, Carlini & Wagner, "Obfuscated gradients give a false sense of security", ICML 2018,
arXiv 1802.00420, section 4.1 (BPDA) and 4.2 (EOT).
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from codingbench.backbone import Network
from codingbench.encoder import Encoder, FeatureEncoder, PixelEncoder
from codingbench.training.evaluation import autocast

Images = Float[Tensor, "batch channel height width"]


class ImageGradient:
    """Computes d loss / d image for a network in evaluation mode.

    The loss is the cross-entropy of the logits averaged over the steps.

    Args:
        network: trained network; its parameters need no gradient.
        draws: number of codes over which the loss is averaged.
        precision: ``fp32`` or ``bf16``.
        is_straight_through: use the straight-through estimate, for codings without a gradient.
    """

    def __init__(
        self, network: Network, draws: int, precision: str, is_straight_through: bool
    ) -> None:
        self.network, self.draws, self.precision = network, draws, precision
        self.is_straight_through = is_straight_through

    def __call__(
        self, images: Images, labels: Int64[Tensor, "batch"], generator: Generator
    ) -> Images:
        """Return the gradient of each image's own loss; 0 where the logits do not depend on it."""
        images = images.detach().requires_grad_()
        total = torch.zeros_like(images)
        encoder = self.network.encoder
        with straight_through(encoder) if self.is_straight_through else nullcontext():
            for _ in range(self.draws):
                with autocast(images.device, self.precision):
                    logits = self.network(images, generator).float().mean(0)
                loss = F.cross_entropy(logits, labels, reduction="sum")
                total += _gradient(loss, images)
        return total / self.draws


@contextmanager
def straight_through(encoder: Encoder) -> Iterator[None]:
    """Within this context, each step of the code has derivative 1 with respect to the coded tensor.

    The values of the code do not change.
    """
    coded: list[Tensor] = []

    def remember_images(module: nn.Module, args: tuple[Any, ...]) -> None:
        images = args[0]
        coded[:] = [module.drive(images) if isinstance(module, PixelEncoder) else images]

    def remember_features(module: nn.Module, args: tuple[Tensor], features: Tensor) -> None:
        coded[:] = [features]

    def replace_gradient(module: nn.Module, args: tuple[Tensor], code: Tensor) -> Tensor:
        (x,) = coded
        return code.detach() + (x - x.detach()).to(code.dtype)  # adds 0 to every step

    source = (
        encoder.stem.register_forward_hook(remember_features)
        if isinstance(encoder, FeatureEncoder)
        else encoder.register_forward_pre_hook(remember_images)
    )
    with source, encoder.code.register_forward_hook(replace_gradient):
        yield


def has_gradient(encoder: Encoder, images: Images, generator: Generator) -> bool:
    """Return whether any value of the code has a non-zero derivative with respect to the images."""
    images = images.detach().requires_grad_()
    emitted: list[Tensor] = []
    with encoder.code.register_forward_hook(lambda module, args, code: emitted.append(code)):
        encoder(images, generator)
    # random weights, so that derivatives of opposite sign do not cancel in the sum
    weights = torch.Generator(images.device).manual_seed(0)
    return any(
        _gradient(
            (code * torch.rand(code.shape, generator=weights, device=code.device)).sum(), images
        )
        .any()
        .item()
        for code in emitted
    )


def _gradient(value: Tensor, images: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(images)
    (gradient,) = torch.autograd.grad(value, images, allow_unused=True)
    return torch.zeros_like(images) if gradient is None else gradient
