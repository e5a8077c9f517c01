"""The gradient of the loss by the image, through any coding.

Codes of pixels compare and round: their derivative is 0, so an attack that follows it finds nothing
and the code looks robust ("gradient masking"). Where a coding has no gradient of its own this takes
BPDA's straight-through estimate: forward the true code, backward

    d code[t] / d x = 1   at every step t, for spikes of either sign,

x the pixel where pixels are coded, the stem's output where features are (Athalye, Carlini & Wagner,
"Obfuscated gradients give a false sense of security", ICML 2018, arXiv 1802.00420, section 4.1).
Codings with neurons have the surrogate gradient that they were trained with. For a random coding
the gradient is that of the mean loss over several codes (EOT, same source, section 4.2).
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from codingbench.backbone import Network
from codingbench.encoder import Encoder, FeatureEncoder
from codingbench.training.evaluation import autocast

Images = Float[Tensor, "batch channel height width"]


class ImageGradient:
    """d loss / d image of a network in evaluation mode, the loss cross-entropy of the mean logits.

    Args:
        network: trained; its parameters need no gradient.
        draws: codes that the loss is the mean over.
        precision: ``fp32`` or ``bf16``.
        is_straight_through: the coding has no gradient of its own.
    """

    def __init__(
        self, network: Network, draws: int, precision: str, is_straight_through: bool
    ) -> None:
        self.network, self.draws, self.precision = network, draws, precision
        self.is_straight_through = is_straight_through

    def __call__(
        self, images: Images, labels: Int64[Tensor, "batch"], generator: Generator
    ) -> Images:
        """Of each image's own loss; 0 where nothing of the image reaches the logits."""
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
    """Inside, every step of the code has derivative 1 by what was coded; its values stay."""
    coded: list[Tensor] = []

    def note_images(module: nn.Module, args: tuple[Any, ...]) -> None:
        coded[:] = args[:1]

    def note_features(module: nn.Module, args: tuple[Tensor], features: Tensor) -> None:
        coded[:] = [features]

    def pass_on(module: nn.Module, args: tuple[Tensor], code: Tensor) -> Tensor:
        (x,) = coded
        return code.detach() + (x - x.detach()).to(code.dtype)  # + 0, at every step

    given = (
        encoder.stem.register_forward_hook(note_features)
        if isinstance(encoder, FeatureEncoder)
        else encoder.register_forward_pre_hook(note_images)
    )
    with given, encoder.code.register_forward_hook(pass_on):
        yield


def has_gradient(encoder: Encoder, images: Images, generator: Generator) -> bool:
    """Whether any value of the code has a derivative other than 0 by these images."""
    images = images.detach().requires_grad_()
    emitted: list[Tensor] = []
    with encoder.code.register_forward_hook(lambda module, args, code: emitted.append(code)):
        encoder(images, generator)
    draws = torch.Generator(images.device).manual_seed(0)  # weights, lest derivatives cancel
    return any(
        _gradient(
            (code * torch.rand(code.shape, generator=draws, device=code.device)).sum(), images
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
