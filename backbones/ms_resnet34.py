"""MS-ResNet-34 for ImageNet, as in the official code of GAC (arXiv 2308.06582)."""

from codingbench.encoder import Task
from codingbench.registry import register_backbone

from ._ms_resnet import MSResNet

STAGES = ((3, 64, 2), (4, 128, 2), (6, 256, 2), (3, 512, 2))  # blocks, channels, first stride


@register_backbone("ms_resnet34")
class MSResNet34(MSResNet):
    """Stem 7x7 of stride 2 to 64 channels; 3, 4, 6, 3 membrane blocks; LIF, pooling, linear.

    Neuron and initial weights are those of the ImageNet form of :class:`MSResNet`. With ``gac`` at
    T = 4 and 1,000 classes: 21,932,984 parameters.

    Raises:
        ValueError: T = 1 on images of up to 32x32.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task, STAGES, "imagenet")
