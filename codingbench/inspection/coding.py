"""A coding prepared for inspection: an untrained network, calibrated to images.

Feature encoders code the output of the stem, which is untrained. Its batch norm would have mean 0
and variance 1, which fit no data and would mislead. Its statistics are therefore set to those of
the images, as the first epoch of a training would do.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor

from codingbench.cells.data import find_sources
from codingbench.cells.grid import Grid, Job
from codingbench.cells.network import check_plugins, task_of
from codingbench.cells.probe import Probe
from codingbench.datasets import get_info, load
from codingbench.datasets.pixels import to_unit
from codingbench.encoder import Encoder, FeatureEncoder, PixelEncoder
from codingbench.errors import SpecError, one_line
from codingbench.inspection.activity import Shape
from codingbench.inspection.patterns import MAX_STEPS
from codingbench.inspection.reconstruction import window_of
from codingbench.training.evaluation import stream
from codingbench.training.graphs import tell_once

DEFAULT_SAMPLES: Final = 400
_MIN_SAMPLES: Final = 4
_MAX_VALUES: Final = 2**22
"""Largest number of values of the code in a batch: 16 MB."""
_CALIBRATION_BATCH: Final = 50
_COMPARED_ALONE: Final = 8
"""Number of images whose code alone is compared with their code in a batch."""


@dataclass(frozen=True)
class Conditions:
    """The conditions that codings are inspected under."""

    dataset: str
    images: int
    """Number of images of the training split, balanced over the classes."""
    fitted: int
    """Number of these images that statistics are fitted on; the others are used for scores."""
    backbone: str
    """Backbone whose stem and neurons the codings use."""
    num_steps: int
    seed: int


class InspectedCoding:
    """A coding with the images to inspect it on: one half for fitting, the other for scores.

    Args:
        job: names the coding, its backbone, T and the seed.
        images: images with values 0 to 255.

    Raises:
        SpecError: the plug-in raises an exception.
    """

    def __init__(self, job: Job, images: UInt8[Tensor, "image channel height width"]) -> None:
        self.job = job
        self.name = job.cell.encoder
        self.images = images
        self.fitted = len(images) // 2
        task = task_of(job.info, job.cell.num_steps)
        with self._errors_named():
            self.probe = Probe(job.encoder, job.backbone, task, job.cell.seed)
        self.encoder = self.probe.encoder
        code = self.code(to_unit(images[:1]), self.generator())
        self.shape: Shape = (code.shape[0], *code.shape[2:])
        self.window = window_of(job.cell.num_steps, self.widest())
        self.probe.calibrate(self._run_fitted_images)

    def conditions(self) -> Conditions:
        """Return the conditions that the coding is inspected under."""
        cell = self.job.cell
        return Conditions(
            cell.dataset, len(self.images), self.fitted, cell.backbone, cell.num_steps, cell.seed
        )

    def widest(self) -> int:
        """Return the largest number of channels of the image, the stem's output and the code."""
        stem_channels: int = self.probe.network.backbone.stem_channels
        return max(self.images.shape[1], stem_channels, self.shape[1])

    @property
    def is_calibrated(self) -> bool:
        """True if the code depends on the stem, whose batch norm was calibrated."""
        return isinstance(self.encoder, FeatureEncoder)

    def generator(self, purpose: str = "code") -> Generator:
        """Return new random numbers, the same for the same seed and purpose."""
        return stream(self.job.cell.seed, f"inspect/{purpose}")

    def code(
        self, images: Float[Tensor, "batch channel height width"], generator: Generator
    ) -> Float[Tensor, "time batch code row column"]:
        """Return the code of images in [0, 1].

        Raises:
            SpecError: the plug-in raises an exception, or its code bypasses ``self.code``.
        """
        with self._errors_named():
            code = self.probe.code(images, generator)
        if code is None:
            raise SpecError(f"{self.name}: its code does not pass through the base class")
        return code

    def batches(self) -> Iterator[tuple[Float[Tensor, "batch channel height width"], bool]]:
        """Yield batches of images in [0, 1], and whether statistics are fitted on them."""
        size = max(1, _MAX_VALUES // math.prod(self.shape))
        for chunk in self.images[: self.fitted].split(size):
            yield to_unit(chunk), True
        for chunk in self.images[self.fitted :].split(size):
            yield to_unit(chunk), False

    def batch_dependence(self) -> float | None:
        """Return the largest difference between an image's code alone and in a batch.

        The stem is left out, because it treats each image alone up to rounding. The result is None
        for random codes.
        """
        encoder, generator = self.encoder, self.generator()
        if not encoder.is_deterministic:
            return None
        with torch.no_grad(), self._errors_named():
            coded = self.probe.coded(to_unit(self.images[:_COMPARED_ALONE]))
            together = _emitted(encoder, coded, generator)
            alone = [_emitted(encoder, image, generator) for image in coded.split(1)]
        return float((together - torch.cat(alone, 1)).abs().max())

    def _run_fitted_images(self) -> None:
        generator = self.generator("calibration")
        for chunk in self.images[: self.fitted].split(_CALIBRATION_BATCH):
            self.code(to_unit(chunk), generator)

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        """Turn exceptions of the plug-in into one line with its name."""
        try:
            yield
        except Exception as error:
            raise SpecError(f"{self.name}: {one_line(error)}") from error


def _emitted(encoder: Encoder, coded: Tensor, generator: Generator) -> Tensor:
    """Return the code of pixels or features."""
    if isinstance(encoder, FeatureEncoder):
        return encoder.encode(coded)
    assert isinstance(encoder, PixelEncoder)
    return encoder.spikes(coded, generator)


def prepare_codings(
    encoders: tuple[str, ...],
    dataset: str,
    num_steps: int,
    samples: int | None = None,
    backbone: str = "csnn",
    seed: int = 0,
    data_dir: Path | None = None,
) -> list[InspectedCoding]:
    """Return the codings, each with the same ``samples`` images of the training split.

    The images are balanced over the classes, and so is each half of them. The arguments are those
    of :func:`codingbench.inspection.session.inspect_codings`.

    Raises:
        SpecError: a name or number is not valid, or a plug-in refuses it.
        DatasetError: the data set cannot be found or downloaded.
    """
    if samples is None:
        samples = min(DEFAULT_SAMPLES, get_info(dataset, data_dir).train_size)
    if samples < _MIN_SAMPLES:
        raise SpecError(f"samples must be at least {_MIN_SAMPLES}, got {samples}")
    if num_steps > MAX_STEPS:
        raise SpecError(f"T must be at most {MAX_STEPS} to count patterns, got {num_steps}")
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
    if remark := source.remark():
        tell_once(remark)
    images = load(source, "train", samples).images
    codings = [InspectedCoding(job, images) for job in jobs]
    window = window_of(num_steps, max(coding.widest() for coding in codings))
    for coding in codings:
        coding.window = window  # the same for every coding, so that R² can be compared
    return codings
