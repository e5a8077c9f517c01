"""my_backbone: a small residual SNN of two membrane blocks with two convolutions each."""

from jaxtyping import Float
from torch import Tensor, nn

from codingbench.backbone import Backbone, MembraneBlock, SpikingHead, conv_bn
from codingbench.encoder import Task
from codingbench.registry import register_backbone


@register_backbone("my_backbone")
class MyBackbone(Backbone):
    """A 3x3 stem with ``width`` channels, two blocks with stride 2, LIF neurons and a linear layer.

    The blocks have 2 and 4 x ``width`` channels. The last LIF layer is pooled over the image.

    Args:
        width: number of channels of the stem, at least 1.

    Raises:
        ValueError: width is less than 1.
    """

    def __init__(self, task: Task, *, width: int = 16) -> None:
        super().__init__(task)
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.stem_channels = width
        self.blocks = nn.Sequential(
            MembraneBlock(self, width, 2 * width, stride=2),
            MembraneBlock(self, 2 * width, 4 * width, stride=2),
        )
        self.head = SpikingHead(self, 4 * width, task.num_classes)

    def make_stem(self, channels: int) -> nn.Module:
        """Return the stem: a 3x3 convolution with batch normalisation, without a stride."""
        return conv_bn(channels, self.stem_channels, kernel_size=3)

    def forward(
        self, cur: Float[Tensor, "time batch stem rows columns"]
    ) -> Float[Tensor, "time batch class"]:
        """Return the logits of every step."""
        logits: Tensor = self.head(self.blocks(cur))
        return logits
