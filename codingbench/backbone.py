"""The contract of a backbone: currents over T steps to logits at every step.

    currents or spikes [T, B, S, H', W']  ->  logits [T, B, K]

The prediction after t steps is the mean of the first t logits. A backbone accepts the output of
every kind of coding, so the first operation on its main path is a neuron.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from codingbench.encoder import Encoder, Setting, Task, build_encoder
from codingbench.neurons import MultiStepLeaky, fused, layout, over_time, packed
from codingbench.neurons.backends import is_fused
from codingbench.neurons.launch import LIF
from codingbench.neurons.leaky import foretell
from codingbench.neurons.neuron import NeuronMaker
from codingbench.registry import Plugin

_chosen: ContextVar[Plugin | None] = ContextVar("chosen", default=None)


class Backbone(nn.Module):
    """Base class; a backbone sets ``stem_channels`` and defines ``make_stem`` and ``forward``."""

    stem_channels: int

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.num_steps = task.num_steps
        if (model := _chosen.get()) is not None:
            self.make_neuron = NeuronMaker(model, self.make_neuron)  # type: ignore[method-assign]

    def make_stem(self, channels: int) -> nn.Module:
        """Return a new stem, images or spikes [B, C, H, W] to [B, S, H', W'], for the encoder."""
        raise NotImplementedError(f"{type(self).__name__} must define make_stem(channels)")

    def make_neuron(self) -> nn.Module:
        """Return a new neuron of this backbone; the default is GAC's LIF.

        ``codingbench run --neurons`` replaces this method by that of another model. A backbone
        that makes none of its neurons by it refuses the option.
        """
        return MultiStepLeaky(beta=0.5, threshold=1.0)

    def forward(
        self, cur: Float[Tensor, "time batch stem rows columns"]
    ) -> Float[Tensor, "time batch class"]:
        """Return the logits of every step."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(cur)")


class MembraneBlock(nn.Module):
    """Neurons and convolutions on the main path, and a shortcut for the membrane current.

        y = [BN(conv(LIF(.)))] * depth (x)  +  x                        (same shape)
        y = [BN(conv(LIF(.)))] * depth (x)  +  BN(conv1x1(x))           (otherwise)

    The shortcut carries currents and has no neuron, so its 1x1 convolution multiplies real numbers.
    Source: MS-ResNet, as in the official code of GAC (arXiv 2308.06582).

    Args:
        backbone: makes the neurons.
        channels_in, channels_out: numbers of channels.
        stride: stride of the first convolution and of the shortcut.
        depth: number of convolutions on the main path.
    """

    def __init__(
        self, backbone: Backbone, channels_in: int, channels_out: int, stride: int, depth: int = 2
    ) -> None:
        super().__init__()
        widths = [channels_in] + [channels_out] * depth
        strides = [stride] + [1] * (depth - 1)
        self.neurons = nn.ModuleList(backbone.make_neuron() for _ in range(depth))
        self.convs = nn.ModuleList(
            conv_bn(widths[i], widths[i + 1], kernel_size=3, stride=strides[i])
            for i in range(depth)
        )
        changes = stride != 1 or channels_in != channels_out
        self.shortcut = conv_bn(channels_in, channels_out, 1, stride) if changes else None

    def forward(
        self, cur: Float[Tensor, "time batch channel height width"]
    ) -> Float[Tensor, "time batch out rows columns"]:
        """Return the block's output current."""
        spk = self.neurons[0](cur)
        for conv, neuron in zip(self.convs[:-1], self.neurons[1:], strict=True):
            spk = conv_fire(conv, neuron, spk)
        # The next block usually begins with the same kind of neuron as this one.
        return conv_add(self.convs[-1], spk, lambda: self._short(cur), self.neurons[0])

    def _short(self, cur: Tensor) -> Tensor:
        return cur if self.shortcut is None else over_time(self.shortcut, cur)


class SpikingConv(nn.Module):
    """``LIF(BN(conv(x)))`` at every step: one layer of a network without membrane shortcuts."""

    def __init__(
        self,
        backbone: Backbone,
        channels_in: int,
        channels_out: int,
        kernel_size: int = 3,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.conv = conv_bn(channels_in, channels_out, kernel_size, stride)
        self.neuron = backbone.make_neuron()

    def forward(
        self, spk: Float[Tensor, "time batch channel height width"]
    ) -> Float[Tensor, "time batch out rows columns"]:
        """Return the layer's spikes."""
        return conv_fire(self.conv, self.neuron, spk)


class SpikingHead(nn.Module):
    """Output layer: LIF, mean over all positions, linear layer."""

    def __init__(self, backbone: Backbone, channels: int, num_classes: int) -> None:
        super().__init__()
        self.neuron = backbone.make_neuron()
        self.linear = nn.Linear(channels, num_classes)

    def forward(
        self, cur: Float[Tensor, "time batch channel height width"]
    ) -> Float[Tensor, "time batch class"]:
        """Return the logits ``linear(mean_hw(LIF(cur)))`` of every step."""
        return over_time(self.linear, self.neuron(cur).mean((3, 4)))


def conv_bn(
    channels_in: int, channels_out: int, kernel_size: int, stride: int = 1
) -> nn.Sequential:
    """Return a convolution without bias and a batch normalisation over batch and time."""
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size, stride, padding, bias=False),
        nn.BatchNorm2d(channels_out),
    )


def conv_fire(layers: nn.Module, neuron: nn.Module, x: Tensor) -> Tensor:
    """Return ``neuron(over_time(layers, x))``; normalisation and neuron are fused if possible."""
    pair = _fusable(layers, neuron, x)
    if pair is None:
        spk: Tensor = neuron(over_time(layers, x))
        return spk
    (conv, norm), lif = pair
    y = packed.convolve(conv, x)
    found = fused.norm_fire(y, norm, lif)
    return neuron(over_time(norm, y)) if found is None else found[0]


def conv_add(
    layers: nn.Module, x: Tensor, shortcut: Callable[[], Tensor], next_neuron: nn.Module
) -> Tensor:
    """Return ``over_time(layers, x) + shortcut()``, the output current of a residual block.

    If possible, one pass computes the normalisation, the sum and the spikes of ``next_neuron``.
    These spikes are attached to the current, for the next neuron with the same parameters.
    """
    pair = _fusable(layers, next_neuron, x)
    if pair is None:
        return over_time(layers, x) + shortcut()
    (conv, norm), lif = pair
    y, residual = packed.convolve(conv, x), shortcut()
    found = fused.norm_fire(y, norm, lif, residual)
    if found is None:
        return over_time(norm, y) + residual
    spk, cur = found
    assert cur is not None
    return foretell(cur, lif, spk)


_Pair = tuple[tuple[nn.Module, nn.BatchNorm2d], LIF]


def _fusable(layers: nn.Module, neuron: nn.Module, x: Tensor) -> _Pair | None:
    """Return convolution, normalisation and neuron if a kernel may replace the last two.

    Modules with hooks are not replaced, because their hooks would not be called.
    """
    if not is_fused(x) or not isinstance(neuron, MultiStepLeaky) or _is_watched(layers, neuron):
        return None
    parts = [*layers.children()] if type(layers) is nn.Sequential else []
    if len(parts) != 2 or not fused.can_normalise(parts[1]):
        return None
    lif = neuron.lif()
    return None if lif is None else (tuple(parts), lif)  # type: ignore[return-value]


def _is_watched(*modules: nn.Module) -> bool:
    if nn.modules.module._has_any_global_hook():
        return True
    parts = (part for module in modules for part in module.modules())
    return any(
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
        for part in parts
    )


def first_neuron() -> MultiStepLeaky:
    """Return the first neuron of a network without membrane shortcuts: GAC's LIF, threshold 0.4.

    It accepts currents as well as spikes. Spikes pass unchanged: 1 exceeds 0.4 and resets the
    membrane, and 0 leaves it at 0. A gated spike above 0.4 passes at once, and weaker ones add up.
    The threshold is below 1/2, which is the value of GAC's gate before training and where all its
    hidden units are off. A threshold of 1 must be exceeded, so no spike would pass at the first
    step, and most gated spikes would never pass.
    """
    return MultiStepLeaky(beta=0.5, threshold=0.4)


def draw_by_fan_out(module: nn.Module) -> None:
    """Draw new weights of all convolutions: normal, variance 2 / (kernel^2 x channels out)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def refuse_one_position(task: Task, stride: int) -> None:
    """Refuse T = 1 if images are so small that the last features have a single position.

    Args:
        task: T and the size of the images.
        stride: product of all strides of the network.

    Raises:
        ValueError: a batch of one image, such as the last one of an epoch, could not be normalised.
    """
    if task.num_steps == 1 and max(task.height, task.width) <= stride:
        raise ValueError(
            f"at T = 1 images must be larger than {stride}x{stride}, got {task.height}x{task.width}"
            ": one position of one image cannot be normalised"
        )


class Network(nn.Module):
    """Encoder and backbone together: images to logits of every step.

    On CUDA, and on a CPU in bfloat16, the memory of all features is channels-last; see
    :func:`move_network`.
    """

    def __init__(self, encoder: Encoder, backbone: Backbone) -> None:
        super().__init__()
        self.encoder = encoder
        self.backbone = backbone

    def forward(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch class"]:
        """Return the logits of every step for raw images in [0, 1]."""
        logits: Tensor = self.backbone(self.encoder(layout.as_device_prefers(images), generator))
        return logits


def move_network(network: Network, device: torch.device, precision: str) -> Network:
    """Move a network to a device, and put its weights in the order in which that device convolves.

    Only weights of convolutions change, also those of a single input channel: convolutions of grey
    images recognise the order by them. (``network.to(memory_format=torch.channels_last)`` skips
    such weights. It also refuses tensors of five dimensions, which some encoders have.)

    Args:
        network: moved in place.
        device: where it will run.
        precision: ``fp32`` or ``bf16``, in which it will run.
    """
    network.to(device)
    if layout.keeps_channels_last(device, precision):
        for weight in network.parameters():
            if weight.dim() == 4:
                weight.data = layout.to_channels_last(weight.data)
    return network


@contextmanager
def _choosing(neuron: Plugin | None) -> Iterator[None]:
    """Let the backbones that are built inside the context make their neurons by a model."""
    token = _chosen.set(neuron)
    try:
        yield
    finally:
        _chosen.reset(token)


def _refuse_without_effect(backbone: Backbone, plugin: Plugin, neuron: Plugin) -> None:
    maker = backbone.make_neuron
    if not isinstance(maker, NeuronMaker) or not maker.made:
        raise ValueError(
            f"{plugin.label} makes its own neurons without make_neuron(), so it cannot have the "
            f"neurons {neuron.label}"
        )


def build_network(
    encoder: Plugin, backbone: Plugin, task: Task, seed: int, neuron: Plugin | None = None
) -> Network:
    """Build an encoder and a backbone with their initial weights.

    Backbone and stem are drawn first, from ``seed`` alone. They have the same initial weights for
    every encoder and T, so that comparisons between codings are paired. Only the stem of a code
    with channels of its own has other weights, because it has more inputs.

    Args:
        neuron: the model of all neurons that the backbone makes by ``make_neuron``, and of those
            that the encoder takes from it; None: the backbone's own.

    Raises:
        ValueError: a plug-in refuses the task or one of its parameters.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with _choosing(neuron):
            body: Backbone = backbone.build(task)
        if neuron is not None:
            _refuse_without_effect(body, backbone, neuron)
        before_stem = torch.get_rng_state()
        stem = body.make_stem(task.channels)
        torch.manual_seed(seed + 1_000_003)  # differs from the seeds of backbones
        setting = Setting(task, stem, body.stem_channels, body.make_neuron)
        coding = build_encoder(encoder, setting)
        if coding.channels != 1:
            torch.set_rng_state(before_stem)
            coding.stem = body.make_stem(coding.channels * task.channels)
        return Network(coding, body)
