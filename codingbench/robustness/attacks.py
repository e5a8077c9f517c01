"""Two attacks within a largest change eps of any pixel, images in [0, 1].

Written here because no library takes a generator of one's own for the random start, or a gradient
that is the mean over several codes; their images are those of the Adversarial Robustness Toolbox
(``tests/test_robustness_attacks.py``).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "batch channel height width"]
Gradient = Callable[[Tensor], Tensor]
"""Images -> the gradient of the loss by them."""


def fgsm(images: Images, gradient: Gradient, eps: float) -> Images:
    """x + eps sign(gradient(x)), clipped to [0, 1].

    Source: Goodfellow, Shlens & Szegedy, "Explaining and harnessing adversarial examples", ICLR
    2015 (arXiv 1412.6572).
    """
    return (images + eps * gradient(images).sign()).clamp(0, 1)


def pgd(
    images: Images, gradient: Gradient, eps: float, steps: int, step_size: float, start: Images
) -> Images:
    """x <- clip(x + step_size sign(gradient(x))), to within eps of the image and [0, 1].

    Args:
        start: first x minus the image, within eps; 0 for none.

    Source: Madry, Makelov, Schmidt, Tsipras & Vladu, "Towards deep learning models resistant to
    adversarial attacks", ICLR 2018 (arXiv 1706.06083).
    """
    low, high = (images - eps).clamp_min(0), (images + eps).clamp_max(1)
    x = torch.clamp(images + start, low, high)
    for _ in range(steps):
        x = torch.clamp(x + step_size * gradient(x).sign(), low, high)
    return x
