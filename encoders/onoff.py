"""ON and OFF cells: two channels that report brighter and darker than the surround.

Source: the retina model of Kheradpisheh, Ganjtabesh, Thorpe & Masquelier, "STDP-based spiking deep
convolutional neural networks for object recognition", Neural Networks 99 (2018), 56-67 (arXiv
1611.01421): a difference of two Gaussians with standard deviations of 1 and 2 pixels in a window of
7 x 7, its positive part in an ON map, its negative part in an OFF map, the stronger the contrast
the earlier the single spike. The paper orders all spikes of an image by contrast and cuts the order
into steps. Here fixed levels decide, so that the spike of a pixel depends on its surround alone.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional as F

from codingbench.encoder import PixelEncoder, Setting
from codingbench.registry import register_encoder

_RADIUS = 3


@register_encoder("onoff")
class OnOffEncoder(PixelEncoder):
    """A cell spikes once, at the first t with c > contrast / 2^t, t counted from 0, or never.

        ON:   c = (G_center - G_surround) * x
        OFF:  c = (G_surround - G_center) * x

    G are Gaussians that sum to 1, so that a uniform area is silent; * is a convolution in each
    channel of the image, which is continued beyond its border by its outermost pixels. The code has
    the shape [T, B, 2 C, H, W]: all ON maps, then all OFF maps.

    Args:
        contrast: level of the first step; positive. Contrasts are below 1.
        center: standard deviation of the centre in pixels; positive.
        surround: standard deviation of the surround in pixels; larger than that of the centre.

    Raises:
        ValueError: contrast or center is not positive, or surround is not larger than center.
    """

    emits = "binary"
    channels = 2
    kernel: Tensor

    def __init__(
        self,
        setting: Setting,
        *,
        contrast: float = 0.2,
        center: float = 1.0,
        surround: float = 2.0,
    ) -> None:
        super().__init__(setting)
        if not contrast > 0:
            raise ValueError(f"contrast must be positive, got {contrast}")
        if not 0 < center < surround:
            raise ValueError(f"expected 0 < center < surround, got {center} and {surround}")
        self.contrast = contrast
        kernel = _gaussian(center) - _gaussian(surround)
        copies = kernel.expand(setting.task.channels, 1, -1, -1).clone()
        self.register_buffer("kernel", copies, False)

    def drive(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch code height width"]:
        """Return the contrast c of the ON cells, then of the OFF cells."""
        padded = F.pad(images, (_RADIUS,) * 4, mode="replicate")
        on = F.conv2d(padded, self.kernel.to(images.dtype), groups=images.shape[1])
        return torch.cat([on, -on], dim=1)

    def spikes(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch code height width"]:
        """Return the spikes; ``generator`` is not used."""
        drive = self.drive(images)
        steps = torch.arange(self.num_steps, device=images.device).reshape(-1, 1, 1, 1, 1)
        is_above = (drive > self.contrast / 2.0**steps).to(images.dtype)
        return torch.cat([is_above[:1], is_above[1:] - is_above[:-1]])


def _gaussian(deviation: float) -> Float[Tensor, "row column"]:
    """Return a Gaussian in the window of 7 x 7, with sum 1."""
    distance = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    profile = torch.exp(-(distance**2) / (2 * deviation**2))
    window = profile[:, None] * profile
    return (window / window.sum()).float()
