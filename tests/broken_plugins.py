"""Plug-ins that break the contract in exactly one way each, and the check that finds it."""

import random
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from codingbench.backbone import Backbone, MembraneBlock, SpikingHead, conv_bn
from codingbench.encoder import Encoder, FeatureEncoder, PixelEncoder, Setting, Task
from codingbench.neurons import over_time

FAULTS: dict[str, str] = {}
"""Names of classes, with the only check that finds the fault of each."""


def caught_by(check: str) -> Any:
    def enter(cls: type) -> type:
        FAULTS[cls.__name__] = check
        return cls

    return enter


def thresholds(x: Tensor, num_steps: int) -> Tensor:
    """Return a correct code: a spike at step t where x > (T - t) / (T + 1)."""
    steps = torch.arange(num_steps, 0, -1, device=x.device) / (num_steps + 1)
    return (x > steps.reshape(-1, *[1] * x.dim())).to(x.dtype)


class Pixels(PixelEncoder):
    """A correct pixel encoder, from which broken ones derive."""

    emits: Any = "binary"

    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        return thresholds(images, self.num_steps)


class Features(FeatureEncoder):
    """A correct feature encoder (direct coding), from which broken ones derive."""

    emits: Any = "binary"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.neuron = setting.make_neuron()

    def encode(self, features: Tensor) -> Tensor:
        spk: Tensor = self.neuron(features.expand(self.num_steps, *features.shape))
        return spk


class NeedsTwoSteps(Pixels):
    """A correct encoder that refuses T = 1 with a reason."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if self.num_steps < 2:
            raise ValueError(f"num_steps must be at least 2, got {self.num_steps}")


# --- encoders -------------------------------------------------------------------------------------


@caught_by("runs")
class Raises(Pixels):
    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        raise KeyError("no such\ntable")


@caught_by("steps")
class LosesAnOddStep(Pixels):
    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        return super().spikes(images, generator)[: max(1, self.num_steps // 2 * 2)]


@caught_by("steps")
class RefusesWithoutReason(Pixels):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if self.num_steps == 1:
            raise ValueError


@caught_by("sizes")
class KnowsOneSize(Pixels):
    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        window = torch.ones(28, 28, device=images.device)
        return super().spikes(images * window, generator)


@caught_by("sizes")
class TakesTheStemForAsLargeAsTheImage(Features):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        task = setting.task
        self.offset = nn.Parameter(torch.zeros(setting.stem_channels, task.height, task.width))

    def encode(self, features: Tensor) -> Tensor:
        return super().encode(features + self.offset)


@caught_by("dtype")
class EmitsDoubles(Features):
    def encode(self, features: Tensor) -> Tensor:
        return super().encode(features).double()


@caught_by("single image")
class NormalisesOverTheBatch(Features):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.norm = nn.BatchNorm1d(setting.stem_channels)

    def encode(self, features: Tensor) -> Tensor:
        gain = self.norm(features.mean((2, 3)))
        return super().encode(features * (1 + gain[:, :, None, None]))


@caught_by("shown code")
class HidesItsCode(Encoder):
    emits: Any = "real"

    def forward(self, images: Tensor, generator: Generator) -> Tensor:
        currents: Tensor = self.stem(images)
        return currents.expand(self.num_steps, *currents.shape)


@caught_by("emits")
class DeclaresMoreThanItEmits(Pixels):
    emits = "real"


@caught_by("emits")
class DeclaresLessThanItEmits(Pixels):
    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        return super().spikes(images, generator) - super().spikes(1 - images, generator)


@caught_by("finite")
class DividesByTheBrightest(Pixels):
    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        brightest = images.amax((1, 2, 3), keepdim=True)
        return super().spikes(images, generator) * (images / brightest).ceil()


@caught_by("distinct results")
class IsTheSameForAllImages(Pixels):
    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        return super().spikes(torch.full_like(images, 0.5), generator)


@caught_by("own image")
class ScalesByTheBatch(Pixels):
    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        return super().spikes(images / images.max().clamp_min(0.01), generator)


@caught_by("own image")
class DrawsByTheBatch(Pixels):
    is_deterministic = False

    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        shape = self.num_steps, *images.shape
        draws = torch.rand(shape, generator=generator, device=images.device)
        return (draws < images / images.max().clamp_min(0.01)).to(images.dtype)


@caught_by("no memory")
class KeepsItsMembrane(Pixels):
    left: Tensor | None = None

    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        before = self.left if self.left is not None else torch.zeros(())
        before = before if before.shape == images.shape else torch.zeros_like(images)
        self.left = images / 2
        return super().spikes((images + before).clamp(0, 1), generator)


@caught_by("generator")
class HidesItsRandomness(Pixels):
    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        draws = torch.rand(images.shape, generator=generator, device=images.device)
        return super().spikes(images * draws, generator)


@caught_by("generator")
class DeclaresRandomnessItLacks(Pixels):
    is_deterministic = False


@caught_by("global generators")
class DrawsWithoutTheGenerator(Pixels):
    is_deterministic = False

    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        return super().spikes(images * torch.rand_like(images), generator)


@caught_by("global generators")
class DrawsFromPython(Pixels):
    is_deterministic = False

    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        return super().spikes(images * random.random(), generator)


@caught_by("initial weights")
class InitialisesWithNumpy(Features):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.gain = nn.Parameter(torch.tensor(1 + np.random.rand()).float())

    def encode(self, features: Tensor) -> Tensor:
        return super().encode(self.gain * features)


@caught_by("same in training")
class IsBrighterInTraining(Pixels):
    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        return super().spikes(images.sqrt() if self.training else images, generator)


@caught_by("input kept")
class WritesIntoTheImages(Pixels):
    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        return super().spikes(images.mul_(0.9), generator)


@caught_by("gradients")
class LeavesAParameterOut(Features):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.gain = nn.Parameter(torch.ones(()))

    def encode(self, features: Tensor) -> Tensor:
        return super().encode(features * self.gain.detach())


@caught_by("gradients")
class CutsOffTheStem(Features):
    def encode(self, features: Tensor) -> Tensor:
        return thresholds(features, self.num_steps)


@caught_by("saved whole")
class AnnealsWhatIsNotSaved(Pixels):
    gain = 1.0

    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        spk = super().spikes(images * self.gain, generator)
        self.gain *= 0.7 if self.training else 1.0
        return spk


@caught_by("saved whole")
class LearnsInABufferThatIsNotSaved(Pixels):
    peak: Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.register_buffer("peak", torch.ones(()), persistent=False)

    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        spk = super().spikes(images * self.peak, generator)
        if self.training:
            self.peak.mul_(0.5 + 0.5 * images.mean())
        return spk


@caught_by("bf16")
class MixesPrecisions(Features):
    def encode(self, features: Tensor) -> Tensor:
        shape = self.num_steps, *features.shape
        train = torch.zeros(shape, device=features.device)
        for t in range(self.num_steps):  # index_copy_ refuses mixed dtypes
            train.index_copy_(0, torch.tensor([t], device=features.device), features[None])
        spk: Tensor = self.neuron(train)
        return spk


@caught_by("counted")
class MultipliesUnseen(Features):
    emits = "real"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.prototypes = nn.Parameter(torch.randn(3, setting.stem_channels))

    def encode(self, features: Tensor) -> Tensor:
        rows = features.float().movedim(1, 3).flatten(0, 2)
        nearest = torch.cdist(rows, self.prototypes).sum(1)
        scaled = features * nearest.reshape(len(features), 1, *features.shape[2:])
        return scaled.expand(self.num_steps, *features.shape)


@caught_by("counted")
class RaisesToALearntPower(Features):
    emits = "real"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.power = nn.Parameter(torch.full((setting.stem_channels, 1, 1), 1.5))

    def encode(self, features: Tensor) -> Tensor:
        bent = torch.pow(features.abs() + 0.1, self.power)
        return bent.expand(self.num_steps, *features.shape)


@caught_by("counted")
class MultipliesItsSignalsUp(Features):
    emits = "real"

    def encode(self, features: Tensor) -> Tensor:
        rising = features.sigmoid().cumprod(1)
        return rising.expand(self.num_steps, *features.shape)


@caught_by("cost per image")
class WorksTwiceOnLargeBatches(Pixels):
    def forward(self, images: Tensor, generator: Generator) -> Tensor:
        if len(images) > 4:
            over_time(self.stem, self.spikes(images, generator))
        return super().forward(images, generator)


@caught_by("device")
class MakesATensorOnTheCpu(Pixels):
    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        steps = torch.arange(self.num_steps, 0, -1).reshape(-1, 1, 1, 1, 1)
        return (images > steps / (self.num_steps + 1)).to(images.dtype)


@caught_by("device")
class KeepsATensorThatIsNoBuffer(Pixels):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.window = torch.full((1,), 0.9)

    def spikes(self, images: Tensor, generator: Generator) -> Tensor:
        return super().spikes(images * self.window, generator)


# --- backbones ------------------------------------------------------------------------------------


class Small(Backbone):
    """A correct backbone, from which broken ones derive."""

    stem_channels = 4

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.block = MembraneBlock(self, 4, 8, stride=2, depth=1)
        self.head = SpikingHead(self, 8, task.num_classes)

    def make_stem(self, channels: int) -> nn.Module:
        return conv_bn(channels, 4, kernel_size=3)

    def forward(self, cur: Tensor) -> Tensor:
        logits: Tensor = self.head(self.block(cur))
        return logits


@caught_by("steps")
class HasFourSteps(Small):
    def forward(self, cur: Tensor) -> Tensor:
        return super().forward(cur) + torch.zeros(4, 1, 1, device=cur.device)[: self.num_steps]


@caught_by("sizes")
class HasTenClasses(Small):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.head = SpikingHead(self, 8, 10)


@caught_by("stem")
class OverstatesItsStem(Small):
    stem_channels = 8


@caught_by("stem")
class SharesItsStem(Small):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.stems = {1: conv_bn(1, 4, 3), 2: conv_bn(2, 4, 3), 3: conv_bn(3, 4, 3)}

    def make_stem(self, channels: int) -> nn.Module:
        return self.stems[channels]


@caught_by("no memory")
class NeverResets(Small):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.left: dict[torch.Size, Tensor] = {}

    def forward(self, cur: Tensor) -> Tensor:
        logits = super().forward(cur)
        before = self.left.get(logits.shape, torch.zeros_like(logits))
        self.left[logits.shape] = logits.detach()
        return logits + before / 2


@caught_by("global generators")
class DropsOut(Small):
    def forward(self, cur: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(cur), 0.2, self.training)


@caught_by("initial weights")
class InitialisesByTheSteps(Small):
    def __init__(self, task: Task) -> None:
        torch.randn(task.num_steps)
        super().__init__(task)


@caught_by("own image")
class NormalisesByTheTestBatch(Small):
    def forward(self, cur: Tensor) -> Tensor:
        return super().forward(cur - cur.mean(1, keepdim=True))


@caught_by("input kept")
class WritesIntoItsCurrents(Small):
    def forward(self, cur: Tensor) -> Tensor:
        return super().forward(cur.contiguous().mul_(0.9))  # a copy only where they are expanded


@caught_by("no future")
class LooksAhead(Small):
    def forward(self, cur: Tensor) -> Tensor:
        return super().forward(cur + cur.mean(0))


@caught_by("gradients")
class CutsOffItsBlock(Small):
    def forward(self, cur: Tensor) -> Tensor:
        logits: Tensor = self.head(self.block(cur).detach())
        return logits


def fired(mem: Tensor) -> Tensor:
    """Return a spike where the membrane exceeds 1, with the gradient of a sigmoid."""
    soft = mem.sigmoid()
    return (mem > 1).to(mem.dtype) + (soft - soft.detach())


class Fire(nn.Module):
    """A spike function without a membrane."""

    def forward(self, mem: Tensor) -> Tensor:
        return fired(mem)


@caught_by("neurons")
class SpikesOutsideAModule(Small):
    def forward(self, cur: Tensor) -> Tensor:
        mem, train = torch.zeros_like(cur[0]), []
        for step in cur:
            mem = 0.5 * mem + step
            spk = self.spikes(mem)
            mem = mem * (1 - spk)
            train.append(spk)
        return super().forward(torch.stack(train) + cur)

    def spikes(self, mem: Tensor) -> Tensor:
        return fired(mem)


@caught_by("neurons")
class ComputesTheMembraneOutsideTheNeuron(SpikesOutsideAModule):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.fire = Fire()

    def spikes(self, mem: Tensor) -> Tensor:
        spk: Tensor = self.fire(mem)
        return spk


@caught_by("neurons")
class PassesSpikesThroughAModule(Small):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.head.neuron = nn.Sequential(self.head.neuron, Thin())


class Thin(nn.Module):
    """Takes out every second column: from spikes alone it cannot be told from a neuron."""

    def forward(self, spk: Tensor) -> Tensor:
        return spk * (torch.arange(spk.shape[-1], device=spk.device) % 2)


FIRST = {
    (check, issubclass(globals()[fault], Backbone)): fault
    for fault, check in reversed(FAULTS.items())
}.values()
"""The first fault of each kind for each check; the others are tested with -m slow."""
