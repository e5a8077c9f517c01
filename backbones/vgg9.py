"""VGG9: the plain stack of convolutions that many papers on coding use.

Source: Kim, Park, Moitra, Bhattacharjee, Venkatesha & Panda, "Rate Coding or Direct Coding: Which
One is Better for Accurate, Robust, and Energy-efficient Spiking Neural Networks?", ICASSP 2022
(arXiv 2202.03133): widths, poolings, hidden layer and the absence of biases as in its code, of
which the first convolution is the stem here.

Not as there: batch normalisation after every convolution (there is none, and larger initial
weights); the neuron, which is GAC's LIF (there the input is weighted by the leak, and the reset
subtracts); max-pooling (see below); and the first neuron, of threshold 0.4, so that the spikes and
gated spikes of an encoder pass. For pixel codings it is the neuron of the first layer.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from codingbench.backbone import Backbone, SpikingConv, conv_bn, first_neuron
from codingbench.encoder import Task
from codingbench.neurons import over_time
from codingbench.registry import register_backbone

STAGES = ((64,), (128, 128), (256, 256, 256))  # channels of the convolutions before each pooling


@register_backbone("vgg9")
class VGG9(Backbone):
    """Stem 3x3 to 64 channels; LIF; convolutions to 64, 2 x 128, 3 x 256, pooling after each group;
    1,024 hidden neurons; linear.

    With ``direct`` coding of 32x32 RGB images: 5,941,184 parameters at 10 classes.

    Args:
        pooling: ``max`` of spikes is a spike, and the next layer adds. ``average``, as in the
            source, makes levels 0, 1/4, ..., 1 of them, and the next layer multiplies: under
            conventions that look at the values its operations cost about five times as much.

    Raises:
        ValueError: the images are smaller than 8x8.
    """

    stem_channels = 64

    def __init__(self, task: Task, *, pooling: Literal["max", "average"] = "max") -> None:
        super().__init__(task)
        if min(task.height, task.width) < 8:
            raise ValueError(f"images must be at least 8x8, got {task.height}x{task.width}")
        self.first = first_neuron()
        stages, channels_in = nn.ModuleList(), self.stem_channels
        for widths in STAGES:
            stage = nn.Sequential()
            for channels in widths:
                stage.append(SpikingConv(self, channels_in, channels))
                channels_in = channels
            stages.append(stage)
        self.stages = stages
        self.pool = nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2)
        positions = (task.height // 8) * (task.width // 8)
        self.hidden = nn.Linear(channels_in * positions, 1024, bias=False)
        self.neuron = self.make_neuron()
        self.linear = nn.Linear(1024, task.num_classes, bias=False)
        # Without normalisation, which one image at T = 1 does not allow here, PyTorch's own weights
        # are too small for a hidden neuron ever to spike.
        nn.init.kaiming_normal_(self.hidden.weight)

    def make_stem(self, channels: int) -> nn.Module:
        """Return conv3x3-BN to 64 channels, full resolution."""
        return conv_bn(channels, self.stem_channels, kernel_size=3)

    def forward(
        self, cur: Float[Tensor, "time batch stem rows columns"]
    ) -> Float[Tensor, "time batch class"]:
        """Return the logits [T, B, K] of every step."""
        spk = self.first(cur)
        for stage in self.stages:
            spk = over_time(self.pool, stage(spk))
        spk = self.neuron(over_time(self.hidden, spk.flatten(2)))
        return over_time(self.linear, spk)
