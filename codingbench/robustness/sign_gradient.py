"""FGSM and PGD: attacks that change no pixel by more than eps, on images in [0, 1].

They are implemented here because no library accepts a generator for the random start, or a gradient
that is averaged over several random codes. Their images equal those of the Adversarial Robustness
Toolbox (``tests/test_robustness_attacks.py``).
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "batch channel height width"]
Gradient = Callable[[Tensor], Tensor]
"""Maps images to the gradient of the loss with respect to them."""


def fgsm(images: Images, gradient: Gradient, eps: float) -> Images:
    """Return x + eps sign(gradient(x)), clipped to [0, 1].

    Source: Goodfellow, Shlens & Szegedy, "Explaining and harnessing adversarial examples", ICLR
    2015 (arXiv 1412.6572).
    """
    return (images + eps * gradient(images).sign()).clamp(0, 1)


def pgd(
    images: Images, gradient: Gradient, eps: float, steps: int, step_size: float, start: Images
) -> Images:
    """Repeat x <- clip(x + step_size sign(gradient(x))), to within eps of the image and to [0, 1].

    Args:
        images: images in [0, 1].
        gradient: gradient of the loss with respect to the images.
        eps: largest change of a pixel.
        steps: number of iterations.
        step_size: change of a pixel per iteration.
        start: offset of the first x from the image, within eps; 0 for no random start.

    Source: Madry, Makelov, Schmidt, Tsipras & Vladu, "Towards deep learning models resistant to
    adversarial attacks", ICLR 2018 (arXiv 1706.06083).
    """
    low, high = (images - eps).clamp_min(0), (images + eps).clamp_max(1)
    x = (images + start).clamp(low, high)
    for _ in range(steps):
        x = (x + step_size * gradient(x).sign()).clamp(low, high)
    return x
