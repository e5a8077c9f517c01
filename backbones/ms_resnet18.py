"""MS-ResNet-18 as in the official code of GAC (arXiv 2308.06582), for 32x32 images or ImageNet.

The form for 32x32 images has [3, 3, 2] blocks at 128, 256 and 512 channels, the layout of tdBN's
ResNet-19 with one linear layer; that for ImageNet [2, 2, 2, 2], and every stage halves the
resolution.
"""

from codingbench.encoder import Task
from codingbench.registry import register_backbone

from ._ms_resnet import Form, MSResNet

STAGES = {  # blocks, channels, stride of the first block
    "cifar": ((3, 128, 1), (3, 256, 2), (2, 512, 2)),
    "imagenet": ((2, 64, 2), (2, 128, 2), (2, 256, 2), (2, 512, 2)),
}


@register_backbone("ms_resnet18")
class MSResNet18(MSResNet):
    """Stem to 64 channels; 3, 3, 2 (or 2, 2, 2, 2) membrane blocks; LIF, pooling, linear.

    With ``direct`` coding of RGB images: 12,502,090 parameters at 10 classes, 12,548,260 at 100.
    With ``gac`` at T = 4 and 1,000 classes the ImageNet form has 11,824,824.

    Args:
        stem: ``cifar`` or ``imagenet``: the whole network is then of that form, its blocks, neuron
            and initial weights, too (see :class:`MSResNet`).

    Raises:
        ValueError: the ImageNet form at T = 1 on images of up to 32x32.
    """

    def __init__(self, task: Task, *, stem: Form = "cifar") -> None:
        super().__init__(task, STAGES[stem], stem)
