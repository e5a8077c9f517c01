"""Spikformer: a spiking transformer whose self-attention has no softmax.

Source: Zhou, Zhu, He, Wang, Yan, Tian & Yuan, "Spikformer: When Spiking Neural Network Meets
Transformer", ICLR 2023 (arXiv 2209.15425), in its form for images of CIFAR: patch splitting with
two poolings, scale 0.125 of the attention, neurons as in its code.

Not as there: the first convolution is the stem, which belongs to the encoder, and a neuron of
threshold 0.4 behind it passes the spikes and gated spikes of an encoder; convolutions keep
PyTorch's initial weights; a membrane equal to the threshold does not spike; and the products of the
attention are computed in the order (V K^T) Q, which gives the same integers as V (K^T Q) with fewer
operations where there are more tokens than channels of a head.
"""

from jaxtyping import Float
from snntorch import surrogate
from torch import Tensor, nn

from codingbench.backbone import (
    Backbone,
    SpikingConv,
    conv_bn,
    first_neuron,
    refuse_one_position,
)
from codingbench.encoder import Task
from codingbench.neurons import MultiStepLeaky, layout, over_time
from codingbench.registry import register_backbone

SCALE = 0.125  # of the attention, before its neuron


@register_backbone("spikformer")
class Spikformer(Backbone):
    """Stem; patch splitting to tokens of 4x4 pixels; blocks of attention and MLP; mean, linear.

        x = SPS(spk),  x = x + LIF(BN(conv3x3(x)))       (the convolution encodes the position)
        x = x + attention(x),  x = x + MLP(x)            (a block; eqs. 7 to 10 of the paper)
        logits = linear(mean of x over the tokens)

    Shortcuts add spikes, so the layers behind them read sums of spikes. The neuron is that of the
    source: it halves its input, its threshold is 1, and the gradient does not see the reset to
    zero. On the scale of the input that is a threshold of 2. With ``direct`` coding of 32x32 RGB
    images: 2,563,882 parameters at 10 classes. With ``blocks=4`` it is the paper's Spikformer-4-256
    (4.15 M parameters there, 4,145,962 here).

    Args:
        blocks: number of transformer blocks, at least 1.
        width: channels of a token, a multiple of 8 and of ``heads``.
        heads: number of attention heads.

    Raises:
        ValueError: an argument is not as above, or T = 1 on images of up to 4x4.
    """

    def __init__(self, task: Task, *, blocks: int = 2, width: int = 256, heads: int = 8) -> None:
        super().__init__(task)
        if blocks < 1 or heads < 1:
            raise ValueError(f"blocks and heads must be at least 1, got {blocks} and {heads}")
        if width < 1 or width % 8 or width % heads:
            raise ValueError(f"width must be a multiple of 8 and of heads={heads}, got {width}")
        refuse_one_position(task, stride=4)
        self.stem_channels = width // 8
        self.first = first_neuron()
        self.splitting = nn.ModuleList(
            SpikingConv(self, width // share, 2 * width // share) for share in (8, 4, 2)
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.position = SpikingConv(self, width, width)
        self.blocks = nn.Sequential(
            *(SpikingTransformer(self, width, heads) for _ in range(blocks))
        )
        self.linear = nn.Linear(width, task.num_classes)

    def make_stem(self, channels: int) -> nn.Module:
        """conv3x3-BN to an eighth of the width, full resolution."""
        return conv_bn(channels, self.stem_channels, kernel_size=3)

    def make_neuron(self, threshold: float = 2.0) -> nn.Module:
        """The neuron of the source, on the scale of its input."""
        slope = surrogate.sigmoid(slope=2.0)
        return MultiStepLeaky(beta=0.5, threshold=threshold, spike_grad=slope, reset_delay=True)

    def forward(
        self, cur: Float[Tensor, "time batch stem rows columns"]
    ) -> Float[Tensor, "time batch class"]:
        """Logits of every step."""
        first, second, third = self.splitting
        spk = over_time(self.pool, second(first(self.first(cur))))
        spk = over_time(self.pool, third(spk))
        sums: Tensor = self.blocks(spk + self.position(spk))
        return over_time(self.linear, sums.mean((3, 4)))


class SpikingTransformer(nn.Module):
    """A block: spiking self-attention and a spiking MLP of four times the width, with shortcuts.

        Q, K, V = LIF(BN(linear(x)))
        attention(x) = LIF(BN(linear(LIF((V K^T) Q scale))))       (of each head)
        MLP(x) = LIF(BN(linear(LIF(BN(linear(x))))))

    Linear layers of tokens are 1x1 convolutions of the map of tokens.

    Args:
        backbone: makes the neurons. That of the attention has half of their threshold.
        width: channels of a token.
        heads: number of attention heads, a divisor of the width.
    """

    def __init__(self, backbone: Spikformer, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = SpikingConv(backbone, width, 3 * width, kernel_size=1)
        self.attention = backbone.make_neuron(threshold=1.0)
        self.project = SpikingConv(backbone, width, width, kernel_size=1)
        self.mlp = nn.Sequential(
            SpikingConv(backbone, width, 4 * width, kernel_size=1),
            SpikingConv(backbone, 4 * width, width, kernel_size=1),
        )

    def forward(
        self, x: Float[Tensor, "time batch channel rows columns"]
    ) -> Float[Tensor, "time batch channel rows columns"]:
        """Return the sums of spikes that the block passes on."""
        cur = SCALE * self.attend(self.qkv(x))
        x = x + self.project(self.attention(layout.as_device_prefers(cur)))
        sums: Tensor = x + self.mlp(x)
        return sums

    def attend(
        self, spk: Float[Tensor, "time batch three_channels rows columns"]
    ) -> Float[Tensor, "time batch channel rows columns"]:
        """Return ``(V K^T) Q`` of every head, the channels of all heads side by side."""
        q, k, v = spk.flatten(3).unflatten(2, (3, self.heads, -1)).unbind(2)
        products = ((v @ k.transpose(-2, -1)) @ q).flatten(2, 3)
        heads: Tensor = products.unflatten(3, spk.shape[3:])
        return heads
