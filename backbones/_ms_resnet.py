"""MS-ResNet: what its depths share, in both forms of the official code of GAC (arXiv 2308.06582).

Membrane shortcuts after Hu et al., "Advancing Spiking Neural Networks toward Deep Residual
Learning" (MS-ResNet).
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from codingbench.backbone import (
    Backbone,
    MembraneBlock,
    SpikingHead,
    conv_bn,
    draw_by_fan_out,
    refuse_one_position,
)
from codingbench.encoder import Task
from codingbench.neurons import MultiStepLeaky
from codingbench.surrogates import rectangle

Form = Literal["cifar", "imagenet"]
Stage = tuple[int, int, int]  # blocks, channels, stride of the first block


class MSResNet(Backbone):
    """Stem to 64 channels; stages of membrane blocks; LIF, pooling, linear.

    In the form ``cifar`` the stem is a 3x3 convolution at full resolution, the neuron GAC's LIF.

    In the form ``imagenet`` the stem is a 7x7 convolution of stride 2, without the max-pooling of
    ResNets. The neuron has threshold 0.5, decay 0.25, a reset to zero that the gradient does not
    see (snntorch's delayed reset: the same spikes) and a rectangular surrogate of width 1. Weights
    of batch normalisation begin at the threshold, those of each block's last one at 0, and
    convolutions are drawn by fan-out. The official code draws GAC's two convolutions so, too; here
    an encoder's own weights are its own affair.

    Args:
        stages: of the body, in order.
        form: as above.

    Raises:
        ValueError: T = 1 on images of up to 32x32 in the form ``imagenet``, which leaves one
            position of them.
    """

    stem_channels = 64

    def __init__(self, task: Task, stages: Sequence[Stage], form: Form) -> None:
        super().__init__(task)
        self.form = form
        blocks, channels_in = nn.Sequential(), self.stem_channels
        for num_blocks, channels, stride in stages:
            for index in range(num_blocks):
                first = index == 0
                blocks.append(MembraneBlock(self, channels_in, channels, stride if first else 1))
                channels_in = channels
        self.blocks = blocks
        self.head = SpikingHead(self, channels_in, task.num_classes)
        if form == "imagenet":
            refuse_one_position(task, stride=32)
            _begin_as_on_imagenet(self)

    def make_stem(self, channels: int) -> nn.Module:
        """Return conv3x3-BN at full resolution or conv7x7-BN at half of it, to 64 channels."""
        if self.form == "cifar":
            return conv_bn(channels, self.stem_channels, kernel_size=3)
        stem = conv_bn(channels, self.stem_channels, kernel_size=7, stride=2)
        _begin_as_on_imagenet(stem)
        return stem

    def make_neuron(self) -> nn.Module:
        """Return a new neuron of this form."""
        if self.form == "cifar":
            return super().make_neuron()
        return MultiStepLeaky(beta=0.25, threshold=0.5, spike_grad=rectangle, reset_delay=True)

    def forward(
        self, cur: Float[Tensor, "time batch stem rows columns"]
    ) -> Float[Tensor, "time batch class"]:
        """Return the logits [T, B, K] of every step."""
        logits: Tensor = self.head(self.blocks(cur))
        return logits


def _begin_as_on_imagenet(module: nn.Module) -> None:
    """Draw the initial weights of the form ``imagenet``."""
    draw_by_fan_out(module)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.weight, 0.5)
    for block in module.modules():
        if isinstance(block, MembraneBlock):
            nn.init.zeros_(block.convs[-1].get_parameter("1.weight"))  # its normalisation
