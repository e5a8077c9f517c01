"""MS-ResNet-18 for 32x32 images, as in the official code of GAC (arXiv 2308.06582).

Membrane shortcuts after Hu et al., "Advancing Spiking Neural Networks toward Deep Residual
Learning" (MS-ResNet); the [3, 3, 2] blocks at 128, 256 and 512 channels are the layout of tdBN's
ResNet-19 with one linear layer.
"""

from jaxtyping import Float
from torch import Tensor, nn

from codingbench.backbone import Backbone, MembraneBlock, SpikingHead, conv_bn
from codingbench.encoder import Task
from codingbench.registry import register_backbone

LAYERS = ((3, 128, 1), (3, 256, 2), (2, 512, 2))  # blocks, channels, stride of the first block


@register_backbone("ms_resnet18")
class MSResNet18(Backbone):
    """Stem 3x3 to 64 channels; 3, 3, 2 membrane blocks at 128, 256, 512; LIF, pooling, linear.

    With ``direct`` coding of RGB images: 12,502,090 parameters at 10 classes, 12,548,260 at 100.
    """

    stem_channels = 64

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        blocks, channels_in = nn.Sequential(), self.stem_channels
        for num_blocks, channels, stride in LAYERS:
            for index in range(num_blocks):
                first = index == 0
                blocks.append(MembraneBlock(self, channels_in, channels, stride if first else 1))
                channels_in = channels
        self.blocks = blocks
        self.head = SpikingHead(self, channels_in, task.num_classes)

    def make_stem(self, channels: int) -> nn.Module:
        """conv3x3-BN to 64 channels, full resolution."""
        return conv_bn(channels, self.stem_channels, kernel_size=3)

    def forward(
        self, cur: Float[Tensor, "time batch stem rows columns"]
    ) -> Float[Tensor, "time batch class"]:
        """Logits of every step."""
        logits: Tensor = self.head(self.blocks(cur))
        return logits
