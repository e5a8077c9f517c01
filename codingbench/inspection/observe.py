"""All that is measured of a coding before any training."""

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
from codingbench.inspection.patterns import PatternCount, Patterns
from codingbench.inspection.reconstruction import Decoder, Reconstruction, block_of
from codingbench.inspection.similarity import Similarity, SimilaritySum
from codingbench.inspection.subject import Subject
from codingbench.schema import VALUE_CLASSES

_PARTS: Final = ("stem", "coding")


@dataclass(frozen=True)
class Cost:
    """What an image costs before its backbone. Energies in microjoules."""

    convention: str
    technology: str
    stem_uj: float
    coding_uj: float
    operations_per_image: dict[str, float]
    """Effective synaptic operations of stem and coding by the value class of their input."""
    stem_parameters: int
    coding_parameters: int
    uncounted: list[str]
    """What the counter does not know: the energies are too low by it."""


@dataclass(frozen=True)
class Observation:
    """A coding, looked at with real images."""

    encoder: str
    """Its canonical name."""
    emits: Emits
    is_deterministic: bool
    shape: Shape
    """Of one image's code: steps, channels, rows, columns."""
    calibrated_on: int | None
    """Images that the batch normalisation of the untrained stem was calibrated on; None for a
    coding of pixels, which sees no stem."""
    activity: Activity
    patterns: Patterns
    amplitudes: Amplitudes | None
    """None for a binary code, which has but one, and one that is 0 everywhere."""
    similarity: Similarity
    reconstruction: Reconstruction
    batch_dependence: float | None
    """Largest difference between an image's code alone and in a batch, expected 0 but for
    rounding; None for a random code."""
    cost: Cost


def observe(subject: Subject, pricing: Pricing = DEFAULT_PRICING) -> Observation:
    """Code all images once and measure what comes out.

    Raises:
        SpecError: the plug-in fails.
    """
    shape, encoder, generator = subject.shape, subject.encoder, subject.generator()
    patterns, similarity = PatternCount(shape[0]), SimilaritySum(shape[0])
    activity, amplitudes = ActivityCount(shape), AmplitudeCount()
    decoder = _decoder(subject)
    with OperationCounter(subject.front, shape[0]) as counter:
        for images, is_fitted in subject.batches():
            code = subject.code(images, generator)
            for count in (activity, patterns, similarity):
                count.add(code)
            if encoder.emits != "binary":
                amplitudes.add(code)
            if decoder:
                decoder.add(code, images, is_fitted)
    return Observation(
        encoder=subject.name,
        emits=encoder.emits,
        is_deterministic=encoder.is_deterministic,
        shape=shape,
        calibrated_on=subject.fitted if subject.is_calibrated else None,
        activity=activity.result(),
        patterns=patterns.result(),
        amplitudes=amplitudes.result(),
        similarity=similarity.result(),
        reconstruction=(
            Reconstruction(subject.window, decoder.curve())
            if decoder
            else Reconstruction(None, [None] * shape[0])
        ),
        batch_dependence=subject.batch_dependence(),
        cost=_cost(subject, counter, pricing),
    )


def _decoder(subject: Subject) -> Decoder | None:
    """None where nothing can be fitted."""
    shape, image_shape = subject.shape, subject.job.info.shape
    block = block_of(shape, image_shape)
    if subject.window is None or block is None:
        return None
    draws = subject.generator("positions")
    return Decoder(shape, image_shape[0], subject.window, block, subject.fitted, draws)


def _cost(subject: Subject, counter: OperationCounter, pricing: Pricing) -> Cost:
    rows = counter.layer_rows()
    spent = dict.fromkeys(_PARTS, 0.0)
    for row in rows:
        spent[part_of(row["layer"])] += pricing.energy_uj(row)
    parameters = dict.fromkeys(_PARTS, 0)
    for name, weights in subject.front.named_parameters():
        parameters[part_of(name)] += weights.numel()
    return Cost(
        convention=pricing.convention.name,
        technology=pricing.technology.name,
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
