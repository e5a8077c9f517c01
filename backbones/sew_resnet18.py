"""SEW-ResNet-18: residual blocks whose shortcuts carry spikes, added to the spikes of the block.

Source: Fang et al., "Deep Residual Learning in Spiking Neural Networks", NeurIPS 2021 (arXiv
2102.04159), with the element-wise function ADD; blocks, order of layers and initial weights as in
its code for ImageNet.

Not as there: the neuron, which is GAC's LIF with its surrogate (there an integrate-and-fire neuron
with the arctangent's and a detached reset), for all backbones here have it; the first neuron, which
has threshold 0.4 so that spikes and gated spikes of an encoder pass (for ``direct`` encoder and
first neuron together are the source's one); and the 3x3 stem without max-pooling, the usual form of
a ResNet-18 for 32x32 images, which the source does not have.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from codingbench.backbone import (
    Backbone,
    SpikingConv,
    conv_bn,
    draw_by_fan_out,
    first_neuron,
    refuse_one_position,
)
from codingbench.encoder import Task
from codingbench.neurons import over_time
from codingbench.registry import register_backbone

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels, stride of the first of two blocks


@register_backbone("sew_resnet18")
class SEWResNet18(Backbone):
    """Stem to 64 channels; LIF; 2, 2, 2, 2 spike-element-wise blocks; pooling, linear.

    Blocks pass on sums of spikes, levels 0 to 3: what reads them (the first convolution and the
    shortcut of every block but the first, and the linear layer) multiplies where it would add on
    spikes. The last sums are averaged over positions without another neuron.
    With ``direct`` coding of RGB images: 11,173,962 parameters at 10 classes, and 11,689,512 with
    the ImageNet stem at 1,000.

    Args:
        stem: ``cifar`` is conv3x3 at full resolution; ``imagenet`` conv7x7 of stride 2, and spikes
            are max-pooled (3x3, stride 2) before the first block.

    Raises:
        ValueError: T = 1 on images of which one position would be left, up to 8x8 or 32x32.
    """

    stem_channels = 64

    def __init__(self, task: Task, *, stem: Literal["cifar", "imagenet"] = "cifar") -> None:
        super().__init__(task)
        self.is_for_imagenet = stem == "imagenet"
        refuse_one_position(task, stride=32 if self.is_for_imagenet else 8)
        self.first = first_neuron()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if self.is_for_imagenet else nn.Identity()
        blocks, channels_in = nn.Sequential(), self.stem_channels
        for channels, stride in STAGES:
            blocks.append(SEWBlock(self, channels_in, channels, stride))
            blocks.append(SEWBlock(self, channels, channels, stride=1))
            channels_in = channels
        self.blocks = blocks
        self.linear = nn.Linear(channels_in, task.num_classes)
        draw_by_fan_out(self)

    def make_stem(self, channels: int) -> nn.Module:
        """Return conv3x3-BN at full resolution or conv7x7-BN at half of it, to 64 channels."""
        kernel_size, stride = (7, 2) if self.is_for_imagenet else (3, 1)
        stem = conv_bn(channels, self.stem_channels, kernel_size, stride)
        draw_by_fan_out(stem)
        return stem

    def forward(
        self, cur: Float[Tensor, "time batch stem rows columns"]
    ) -> Float[Tensor, "time batch class"]:
        """Return the logits [T, B, K] of every step."""
        sums: Tensor = self.blocks(over_time(self.pool, self.first(cur)))
        return over_time(self.linear, sums.mean((3, 4)))


class SEWBlock(nn.Module):
    """A block that adds the shortcut's spikes to the spikes of two layers.

        y = LIF(BN(conv(LIF(BN(conv(x))))))  +  x                      (same shape)
        y = LIF(BN(conv(LIF(BN(conv(x))))))  +  LIF(BN(conv1x1(x)))    (else)

    Args:
        backbone: gives the neurons.
        channels_in, channels_out: feature channels.
        stride: of the first convolution and of the shortcut.
    """

    def __init__(
        self, backbone: Backbone, channels_in: int, channels_out: int, stride: int
    ) -> None:
        super().__init__()
        self.main = nn.Sequential(
            SpikingConv(backbone, channels_in, channels_out, stride=stride),
            SpikingConv(backbone, channels_out, channels_out),
        )
        changes = stride != 1 or channels_in != channels_out
        self.shortcut = (
            SpikingConv(backbone, channels_in, channels_out, kernel_size=1, stride=stride)
            if changes
            else None
        )

    def forward(
        self, spk: Float[Tensor, "time batch channel height width"]
    ) -> Float[Tensor, "time batch out rows columns"]:
        """Return the sums of spikes [T, B, C, H, W]."""
        main: Tensor = self.main(spk)
        return main + (spk if self.shortcut is None else self.shortcut(spk))
