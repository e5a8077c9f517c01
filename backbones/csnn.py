"""A small convolutional SNN for laptops: three membrane blocks of one convolution each.

The membrane shortcuts are MS-ResNet's (see ``ms_resnet18``). They are there because a first neuron
with threshold 1 cannot pass on single spikes or gated spikes, which never exceed 1: on a plain
stack, direct coding and GAC would be cut off by the neuron, not judged by their code.
"""

from jaxtyping import Float
from torch import Tensor, nn

from codingbench.backbone import Backbone, MembraneBlock, SpikingHead, conv_bn
from codingbench.encoder import Task
from codingbench.registry import register_backbone


@register_backbone("csnn")
class CSNN(Backbone):
    """Stem 3x3 to ``width`` channels; stride-2 blocks to 2, 4, 8 x ``width``; LIF, pooling, linear.

    Args:
        width: channels of the stem.

    Raises:
        ValueError: width is not positive, or the images are smaller than 8x8.
    """

    def __init__(self, task: Task, *, width: int = 16) -> None:
        super().__init__(task)
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        if min(task.height, task.width) < 8:
            raise ValueError(f"images must be at least 8x8, got {task.height}x{task.width}")
        self.stem_channels = width
        self.blocks = nn.Sequential(
            MembraneBlock(self, width, 2 * width, stride=2, depth=1),
            MembraneBlock(self, 2 * width, 4 * width, stride=2, depth=1),
            MembraneBlock(self, 4 * width, 8 * width, stride=2, depth=1),
        )
        self.head = SpikingHead(self, 8 * width, task.num_classes)

    def make_stem(self, channels: int) -> nn.Module:
        """Return conv3x3-BN to ``width`` channels, full resolution."""
        return conv_bn(channels, self.stem_channels, kernel_size=3)

    def forward(
        self, cur: Float[Tensor, "time batch stem rows columns"]
    ) -> Float[Tensor, "time batch class"]:
        """Return the logits [T, B, K] of every step."""
        logits: Tensor = self.head(self.blocks(cur))
        return logits
