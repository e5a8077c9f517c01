"""A coding made ready to be looked at: built, its batch normalisation calibrated, images at hand.

A coding of features sees them through the stem, which is untrained. The running statistics of its
batch normalisation would be those of no data at all (mean 0, variance 1), and mislead: they are set
to those of the images, as the first epoch of a training would.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from codingbench.cells.grid import Grid, Job
from codingbench.cells.network import check_plugins, network_of
from codingbench.cells.run import find_sources
from codingbench.datasets import load
from codingbench.datasets.pixels import to_unit
from codingbench.encoder import Encoder, FeatureEncoder, PixelEncoder
from codingbench.errors import SpecError, one_line
from codingbench.inspection.activity import Shape
from codingbench.inspection.patterns import MOST_STEPS
from codingbench.inspection.reconstruction import window_of
from codingbench.training.evaluation import stream

DEFAULT_SAMPLES: Final = 400
_FEWEST_SAMPLES: Final = 4
_VALUES_AT_ONCE: Final = 2**22
"""Of the code, in a batch: 16 MB."""
_CALIBRATION_BATCH: Final = 50
_ALONE: Final = 8


@dataclass(frozen=True)
class Conditions:
    """What codings are looked at with."""

    dataset: str
    images: int
    """Of the training split, balanced over the classes."""
    fitted: int
    """Of these, the images that statistics are fitted on; the others are scored."""
    backbone: str
    """Whose stem and neuron they have."""
    num_steps: int
    seed: int


class Front(nn.Module):
    """A network that ends behind its encoder; its layers have the names they have in networks."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor, generator: Generator) -> Tensor:
        """What the backbone would see."""
        currents: Tensor = self.encoder(images, generator)
        return currents


class Subject:
    """A coding and the images it is looked at with: one half to fit on, the other to score.

    Args:
        job: names the coding, its backbone, T and the seed.
        images: 0 to 255.

    Raises:
        SpecError: the plug-in fails.
    """

    def __init__(self, job: Job, images: UInt8[Tensor, "image channel height width"]) -> None:
        self.job = job
        self.name = job.cell.encoder
        self.images = images
        self.fitted = len(images) // 2  # the first so many
        with self._naming_itself():
            network = network_of(job)
        self.front = Front(network.encoder).eval()
        self.encoder = network.encoder
        widest = max(images.shape[1], network.backbone.stem_channels)
        self.window = window_of(job.cell.num_steps, widest)  # the same for every coding
        code = self.code(to_unit(images[:1]), self.generator())
        self.shape: Shape = (code.shape[0], *code.shape[2:])
        self._calibrate()

    def conditions(self) -> Conditions:
        """What the coding is looked at with."""
        cell = self.job.cell
        return Conditions(
            cell.dataset, len(self.images), self.fitted, cell.backbone, cell.num_steps, cell.seed
        )

    @property
    def is_calibrated(self) -> bool:
        """Whether the code depends on the stem, whose batch normalisation was calibrated."""
        return isinstance(self.encoder, FeatureEncoder)

    def generator(self, purpose: str = "code") -> Generator:
        """Fresh random numbers, the same for the same seed."""
        return stream(self.job.cell.seed, f"inspect/{purpose}")

    def code(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch code row column"]:
        """What the coding emits for images in [0, 1].

        Raises:
            SpecError: the plug-in fails, or its code does not pass through its base class.
        """
        emitted: list[Tensor] = []
        handle = self.encoder.code.register_forward_hook(
            lambda module, args, output: emitted.append(output)
        )
        with torch.no_grad(), self._naming_itself(), handle:
            self.front(images, generator)
        if not emitted:
            raise SpecError(f"{self.name}: its code does not pass through the base class")
        return emitted[-1]

    def batches(self) -> Iterator[tuple[Float[Tensor, "batch channel height width"], bool]]:
        """Images in [0, 1], and whether they are to fit on."""
        size = max(1, _VALUES_AT_ONCE // math.prod(self.shape))
        for chunk in self.images[: self.fitted].split(size):
            yield to_unit(chunk), True
        for chunk in self.images[self.fitted :].split(size):
            yield to_unit(chunk), False

    def _calibrate(self) -> None:
        """Set the running statistics of batch normalisation to those of the images to fit on."""
        norms = [layer for layer in self.front.modules() if isinstance(layer, _BatchNorm)]
        for layer in norms:
            layer.reset_running_stats()
            layer.momentum = None  # the mean over all batches
            layer.train()
        generator = self.generator("calibration")
        for chunk in self.images[: self.fitted].split(_CALIBRATION_BATCH):
            self.code(to_unit(chunk), generator)
        for layer in norms:
            layer.eval()

    def batch_dependence(self) -> float | None:
        """The largest difference between an image's code alone and in a batch; None if the code is
        random. The stem is left out: it works on each image alone, up to rounding."""
        encoder, generator = self.encoder, self.generator()
        if not encoder.is_deterministic:
            return None
        with torch.no_grad(), self._naming_itself():
            given = to_unit(self.images[:_ALONE])
            if isinstance(encoder, FeatureEncoder):
                given = encoder.stem((given - encoder.mean) / encoder.std)
            together = _emitted(encoder, given, generator)
            alone = [_emitted(encoder, image, generator) for image in given.split(1)]
        return float((together - torch.cat(alone, 1)).abs().max())

    @contextmanager
    def _naming_itself(self) -> Iterator[None]:
        """What goes wrong in the plug-in is one line."""
        try:
            yield
        except Exception as error:
            raise SpecError(f"{self.name}: {one_line(error)}") from error


def _emitted(encoder: Encoder, given: Tensor, generator: Generator) -> Tensor:
    """The code of pixels or features."""
    if isinstance(encoder, FeatureEncoder):
        return encoder.encode(given)
    assert isinstance(encoder, PixelEncoder)
    return encoder.spikes(given, generator)


def subjects(
    encoders: tuple[str, ...],
    dataset: str,
    num_steps: int,
    samples: int = DEFAULT_SAMPLES,
    backbone: str = "csnn",
    seed: int = 0,
    data_dir: Path | None = None,
) -> list[Subject]:
    """The codings, each with the same ``samples`` images of the training split.

    They are balanced over the classes, and so is each half.

    Raises:
        SpecError: a name or number is not valid, or a plug-in refuses it.
        DatasetError: the data set is not there and not to be had.
    """
    if samples < _FEWEST_SAMPLES:
        raise SpecError(f"samples must be at least {_FEWEST_SAMPLES}, got {samples}")
    if num_steps > MOST_STEPS:
        raise SpecError(f"T must be at most {MOST_STEPS} to count patterns, got {num_steps}")
    grid = Grid(
        encoders=encoders,
        backbones=(backbone,),
        datasets=(dataset,),
        num_steps=(num_steps,),
        seeds=(seed,),
        train_samples=samples,
        data_dir=data_dir,
    )
    jobs = grid.expand()
    check_plugins(jobs)
    source = find_sources(jobs, data_dir)[jobs[0].cell.dataset]
    images = load(source, "train", samples).images
    return [Subject(job, images) for job in jobs]
