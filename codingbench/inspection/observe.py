"""Measure a coding before any training."""

from dataclasses import dataclass
from typing import Final

from codingbench.analysis.bill import part_of
from codingbench.counting.counter import OperationCounter
from codingbench.encoder import Emits
from codingbench.energy import DEFAULT_PRICING, Pricing
from codingbench.inspection.activity import (
    Activity,
    ActivityCount,
    AmplitudeCount,
    Amplitudes,
    Shape,
)
from codingbench.inspection.coding import InspectedCoding
from codingbench.inspection.patterns import PatternCount, Patterns
from codingbench.inspection.reconstruction import Decoder, Reconstruction, block_of
from codingbench.inspection.similarity import Similarity, SimilaritySum
from codingbench.schema import VALUE_CLASSES

_PARTS: Final = ("stem", "coding")


@dataclass(frozen=True)
class Cost:
    """The cost of an image up to the input of the backbone. Energies are in microjoules."""

    convention: str
    technology: str
    stem_uj: float
    coding_uj: float
    operations_per_image: dict[str, float]
    """Effective synaptic operations of stem and coding, by the value class of their input."""
    stem_parameters: int
    coding_parameters: int
    uncounted: list[str]
    """Operations that the counter does not know and the energies leave out."""


@dataclass(frozen=True)
class Observation:
    """Everything that is measured of a coding, with real images."""

    encoder: str
    """Canonical name of the coding."""
    emits: Emits
    is_deterministic: bool
    shape: Shape
    """Shape of one image's code: steps, channels, rows, columns."""
    code_channels: int
    """Channels of the code for each channel of the image; if not 1, the stem has more inputs."""
    calibrated_on: int | None
    """Number of images that the batch norm of the untrained stem was calibrated on.

    None for pixel encoders, whose code does not depend on the stem.
    """
    activity: Activity
    patterns: Patterns
    amplitudes: Amplitudes | None
    """None for binary codes, whose only amplitude is 1, and for codes that are 0 everywhere."""
    similarity: Similarity
    reconstruction: Reconstruction
    batch_dependence: float | None
    """Largest difference between an image's code alone and in a batch.

    It should be 0 up to rounding. None for random codes.
    """
    cost: Cost


def observe(coding: InspectedCoding, pricing: Pricing = DEFAULT_PRICING) -> Observation:
    """Code all images once and measure the code and its cost.

    Raises:
        SpecError: the plug-in raises an exception.
    """
    shape, encoder, generator = coding.shape, coding.encoder, coding.generator()
    patterns, similarity = PatternCount(shape[0]), SimilaritySum(shape[0])
    activity, amplitudes = ActivityCount(shape), AmplitudeCount()
    decoder = _decoder(coding)
    with OperationCounter(coding.probe.front, shape[0]) as counter:
        for images, is_fitted in coding.batches():
            code = coding.code(images, generator)
            for count in (activity, patterns, similarity):
                count.add(code)
            if encoder.emits != "binary":
                amplitudes.add(code)
            if decoder:
                decoder.add(code, images, is_fitted)
    return Observation(
        encoder=coding.name,
        emits=encoder.emits,
        is_deterministic=encoder.is_deterministic,
        shape=shape,
        code_channels=encoder.channels,
        calibrated_on=coding.fitted if coding.is_calibrated else None,
        activity=activity.result(),
        patterns=patterns.result(),
        amplitudes=amplitudes.result(),
        similarity=similarity.result(),
        reconstruction=(
            Reconstruction(coding.window, decoder.curve())
            if decoder
            else Reconstruction(None, [None] * shape[0])
        ),
        batch_dependence=coding.batch_dependence(),
        cost=_cost(coding, counter, pricing),
    )


def _decoder(coding: InspectedCoding) -> Decoder | None:
    """Return the decoder; None if nothing can be fitted."""
    shape, image_shape = coding.shape, coding.job.info.shape
    block = block_of(shape, image_shape)
    if coding.window is None or block is None:
        return None
    draws = coding.generator("positions")
    return Decoder(shape, image_shape[0], coding.window, block, coding.fitted, draws)


def _cost(coding: InspectedCoding, counter: OperationCounter, pricing: Pricing) -> Cost:
    rows = counter.layer_rows()
    spent = dict.fromkeys(_PARTS, 0.0)
    for row in rows:
        spent[part_of(row["layer"])] += pricing.energy_uj(row)
    parameters = dict.fromkeys(_PARTS, 0)
    for name, weights in coding.probe.front.named_parameters():
        parameters[part_of(name)] += weights.numel()
    return Cost(
        convention=pricing.convention.name,
        technology=pricing.priced_by,
        stem_uj=spent["stem"],
        coding_uj=spent["coding"],
        operations_per_image={
            name: sum(row[f"effective_{name}"] for row in rows) / counter.images
            for name in VALUE_CLASSES
        },
        stem_parameters=parameters["stem"],
        coding_parameters=parameters["coding"],
        uncounted=counter.uncounted(),
    )
