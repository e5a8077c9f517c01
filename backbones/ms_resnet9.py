"""MS-ResNet-9: a small network of few, wide convolutions, which a GPU trains in about a minute.

Layout of the ResNet-9 of ANN speed records (Page, "How to train your ResNet", 2018): stem, three
convolutions that halve the resolution, and residual blocks of two convolutions after the first and
the last of them. Membrane shortcuts are those of MS-ResNet (see ``ms_resnet18``). Currents are
max-pooled before the neuron, as in Max-ResNet (arXiv 2505.18608), because the maximum of spikes
says less than the spike of the maximum.

The normalisation follows the pooling. It sees a quarter of the values and stands directly before
the neuron, so that one kernel computes both on a GPU.
"""

from jaxtyping import Float
from torch import Tensor, nn

from codingbench.backbone import (
    Backbone,
    MembraneBlock,
    SpikingHead,
    conv_add,
    conv_bn,
    refuse_one_position,
)
from codingbench.encoder import Task
from codingbench.neurons import over_time
from codingbench.registry import register_backbone


@register_backbone("ms_resnet9")
class MSResNet9(Backbone):
    """Stem 3x3 to ``width`` channels; pooled blocks to 2, 4, 8 x ``width``; LIF, mean, linear.

    A membrane block of two convolutions follows the first and the last pooled block. Images of any
    size are accepted; an odd number of rows or columns is rounded up when it is halved.

    With ``direct`` coding of 32x32 RGB images at width 64: 6,746,954 parameters at 10 classes,
    6,793,124 at 100, and 384 million dense multiply-accumulates per step, 2 % of them in the
    shortcuts.

    Args:
        width: channels of the stem. Multiples of 64 suit GPUs.

    Raises:
        ValueError: width is not positive, or T = 1 on images of up to 8x8, of which one position
            would be left.
    """

    def __init__(self, task: Task, *, width: int = 64) -> None:
        super().__init__(task)
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        refuse_one_position(task, stride=8)
        self.stem_channels = width
        self.blocks = nn.Sequential(
            PooledBlock(self, width, 2 * width),
            MembraneBlock(self, 2 * width, 2 * width, stride=1),
            PooledBlock(self, 2 * width, 4 * width),
            PooledBlock(self, 4 * width, 8 * width),
            MembraneBlock(self, 8 * width, 8 * width, stride=1),
        )
        self.head = SpikingHead(self, 8 * width, task.num_classes)

    def make_stem(self, channels: int) -> nn.Module:
        """conv3x3-BN to ``width`` channels, full resolution."""
        return conv_bn(channels, self.stem_channels, kernel_size=3)

    def forward(
        self, cur: Float[Tensor, "time batch stem rows columns"]
    ) -> Float[Tensor, "time batch class"]:
        """Logits of every step."""
        logits: Tensor = self.head(self.blocks(cur))
        return logits


class PooledBlock(nn.Module):
    """A membrane block of one convolution that halves the resolution by max-pooling of currents.

        y = BN(maxpool2x2(conv(LIF(x))))  +  BN(conv1x1(x))    (stride 2)

    Args:
        backbone: makes the neuron.
        channels_in, channels_out: numbers of channels.
    """

    def __init__(self, backbone: Backbone, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.neuron = backbone.make_neuron()
        conv = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False)
        pooled = nn.Sequential(conv, nn.MaxPool2d(2, ceil_mode=True))
        self.layers = nn.Sequential(pooled, nn.BatchNorm2d(channels_out))
        self.shortcut = conv_bn(channels_in, channels_out, kernel_size=1, stride=2)

    def forward(
        self, cur: Float[Tensor, "time batch channel height width"]
    ) -> Float[Tensor, "time batch out rows columns"]:
        """Return the block's output current."""
        spk = self.neuron(cur)
        # The next block begins with the same kind of neuron as this one.
        return conv_add(self.layers, spk, lambda: over_time(self.shortcut, cur), self.neuron)
