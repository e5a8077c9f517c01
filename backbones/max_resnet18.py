"""Max-ResNet-18: MS-ResNet-18 with max-pooling of currents instead of strided convolutions.

Source: Fang, Zhou, Wang et al., "Spiking Neural Networks Need High-Frequency Information", NeurIPS
2025 (arXiv 2505.18608); network and neuron as in its code, github.com/bic-L/MaxFormer,
cifar10-100/max_resnet.py.

Not as there: a membrane equal to the threshold does not spike. The source's coding, a convolution
with normalisation and no neuron, belongs to the encoder here: it is ``direct[spiking=false]``.
"""

from snntorch import surrogate
from torch import nn

from codingbench.backbone import MembraneBlock
from codingbench.encoder import Task
from codingbench.neurons import MultiStepLeaky
from codingbench.registry import register_backbone

from ._ms_resnet import MSResNet

STAGES = ((3, 128, 1), (3, 256, 2), (2, 512, 2))  # blocks, channels, stride of the first block


@register_backbone("max_resnet18")
class MaxResNet18(MSResNet):
    """Stem to 64 channels; 3, 3, 2 membrane blocks; LIF, pooling, linear; as ``ms_resnet18``.

    The first block of the second and of the third stage halves the resolution of its main path by
    max-pooling:

        y = BN(conv(LIF(maxpool3x3(BN(conv(LIF(x)))))))  +  BN(conv1x1(x))    (both of stride 2)

    The neuron is SpikingJelly's ``LIFNode(tau=2.0, detach_reset=True)``. It halves its input, its
    threshold is 1, and the gradient does not see the reset to zero. On the scale of the input,

        v[t] = v[t-1] / 2 + current[t],    spike where v[t] > 2, then v[t] = 0.

    With ``direct[spiking=false]`` coding of 32x32 RGB images: 12,502,090 parameters at 10 classes,
    12,548,260 at 100, and 2.67 billion dense multiply-accumulates per step (``ms_resnet18``: 2.22).

    Args:
        first_threshold: threshold of the first neuron, positive. The source's is 2. Spikes of an
            encoder (``direct``, ``gac``) never make this neuron spike: a spike at every step gives
            v = 1, 1.5, 1.75, ... Then only the shortcut of the first block passes them on. With 0.4
            they also pass its main path, as in ``vgg9``.

    Raises:
        ValueError: first_threshold is not positive.
    """

    def __init__(self, task: Task, *, first_threshold: float = 2.0) -> None:
        super().__init__(task, STAGES, form="cifar")
        blocks = [block for block in self.blocks if isinstance(block, MembraneBlock)]
        for block in blocks:
            _pool_instead_of_stride(block.convs[0])
        blocks[0].neurons[0] = _neuron(first_threshold)

    def make_neuron(self) -> nn.Module:
        """Return the source's neuron, on the scale of its input."""
        return _neuron(threshold=2.0)


def _neuron(threshold: float) -> MultiStepLeaky:
    """A LIF with detached reset to zero.

    SpikingJelly's surrogate is the sigmoid of slope 4 on the scale of the halved membrane.
    """
    slope = surrogate.sigmoid(slope=2.0)
    return MultiStepLeaky(beta=0.5, threshold=threshold, spike_grad=slope, reset_delay=True)


def _pool_instead_of_stride(layers: nn.Module) -> None:
    """Let convolution and normalisation keep the resolution, and append max-pooling of stride 2."""
    assert isinstance(layers, nn.Sequential)
    conv = layers[0]
    assert isinstance(conv, nn.Conv2d)
    if conv.stride != (1, 1):
        conv.stride = (1, 1)
        layers.append(nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
