"""MS-ResNet-9: few and wide convolutions with membrane shortcuts, a small network for GPUs.

Source: the layout is that of Page, "How to train your ResNet" (2018), the ResNet-9 of speed records
of CIFAR-10: stem, three convolutions that halve the resolution, and a residual block of two
convolutions after the first and the last of them. Membrane shortcuts as in MS-ResNet (Hu et al.,
arXiv 2112.08954); max-pooling of currents as in Max-ResNet (arXiv 2505.18608).

Own choices, by accuracy per operation of narrow forms (see results/reference/tuning/README.md):

- The three pooled convolutions have no shortcut, so that only spikes enter convolutions behind the
  stem. The first neuron has threshold 0.4, so that spikes and gated spikes of an encoder pass.
- Pooling comes before normalisation, which then sees a quarter of the values.
- All weights begin as PyTorch draws them. Residual blocks that begin as their shortcut, with a last
  normalisation of weight 0, ended no better, and could not learn under a recipe that freezes it.
"""

from jaxtyping import Float
from torch import Tensor, nn

from codingbench.backbone import (
    Backbone,
    MembraneBlock,
    SpikingHead,
    conv_bn,
    conv_fire,
    first_neuron,
    refuse_one_position,
)
from codingbench.encoder import Task
from codingbench.neurons import over_time
from codingbench.registry import register_backbone


@register_backbone("ms_resnet9")
class MSResNet9(Backbone):
    """Stem to ``width`` channels; three pooled convolutions to 2, 4, 8 x ``width``, each after LIF,
    with a membrane block behind the first and the last; LIF, mean over positions, linear.

    Images may have any size; an odd number of rows or columns is rounded up when it is halved.

    With ``direct`` coding of 32x32 RGB images at width 64: 6,573,130 parameters at 10 classes,
    6,619,300 at 100, and 377 million dense operations per step, all of them on spikes but 5,120.

    Args:
        width: channels of the stem, at least 1. Multiples of 64 suit GPUs.

    Raises:
        ValueError: width is less than 1, or T = 1 on images of up to 8x8, of which one position
            would be left.
    """

    def __init__(self, task: Task, *, width: int = 64) -> None:
        super().__init__(task)
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        refuse_one_position(task, stride=8)
        self.stem_channels = width
        self.neurons = nn.ModuleList([first_neuron(), self.make_neuron(), self.make_neuron()])
        self.pooled = nn.ModuleList(
            _conv_pool_bn(channels, 2 * channels) for channels in (width, 2 * width, 4 * width)
        )
        self.residuals = nn.ModuleList(
            MembraneBlock(self, channels, channels, stride=1) for channels in (2 * width, 8 * width)
        )
        self.head = SpikingHead(self, 8 * width, task.num_classes)

    def make_stem(self, channels: int) -> nn.Module:
        """Return conv3x3-BN to ``width`` channels, full resolution."""
        return conv_bn(channels, self.stem_channels, kernel_size=3)

    def forward(
        self, cur: Float[Tensor, "time batch stem rows columns"]
    ) -> Float[Tensor, "time batch class"]:
        """Return the logits [T, B, K] of every step."""
        cur = over_time(self.pooled[0], self.neurons[0](cur))
        cur = self.residuals[0](cur)
        spk = conv_fire(self.pooled[1], self.neurons[2], self.neurons[1](cur))
        cur = over_time(self.pooled[2], spk)
        logits: Tensor = self.head(self.residuals[1](cur))
        return logits


def _conv_pool_bn(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return a convolution with pooling, and the normalisation of what is left."""
    conv = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False)
    pool = nn.MaxPool2d(kernel_size=2, ceil_mode=True)
    return nn.Sequential(nn.Sequential(conv, pool), nn.BatchNorm2d(channels_out))
