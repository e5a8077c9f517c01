"""All figures of a comparison, in the order of the page."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from codingbench.report.comparison import Comparison
from codingbench.report.figures import bill, curves, pareto, rates
from codingbench.report.figures.base import Figure
from codingbench.report.styles import Style


@dataclass(frozen=True)
class FigureSpec:
    """One figure: what it is called, what it says, how it is made."""

    name: str
    """Of its file and of its place in the page."""
    section: str
    """Heading in the page; figures of one section stand side by side."""
    title: str
    caption: str
    table: str
    """Of the store, that it is drawn from."""
    rows: Callable[[Comparison], int]
    """How many rows there are to draw it from."""
    draw: Callable[[Comparison, Mapping[str, Style], str], Figure]
    """Of the comparison, the codings' styles and the name of the energy convention."""
    by_convention: bool = False
    """Whether it is another one under another energy convention."""
    has_own_legend: bool = False
    """Whether its parts are not codings."""
    notes: Callable[[Comparison, str], Iterable[str]] = lambda comparison, convention: ()
    """What is said of this comparison under this convention."""


def _rows_with_curves(comparison: Comparison) -> int:
    return comparison.curves["row"].nunique()


def _rows_with_epochs(comparison: Comparison) -> int:
    return comparison.epochs["row"].nunique()


_ANYTIME, _LEARNING = "Anytime: what every step gives and costs", "Learning"

FIGURES: Final = (
    FigureSpec(
        "pareto",
        "Accuracy and energy",
        "Accuracy over energy per image",
        "Up and to the left is better. Means over seeds with 95 % t intervals of both; hollow: one "
        "run, no interval. Lines join the T of one coding. The dotted front joins the rows of this "
        "comparison that none beats in both means; it is not tested.",
        "cells",
        lambda comparison: len(comparison.rows),
        pareto.draw,
        by_convention=True,
        notes=pareto.notes,
    ),
    FigureSpec(
        "anytime-accuracy",
        _ANYTIME,
        "Accuracy after t steps",
        "Of the mean of the first t logits of one T-step model: small points are prefixes of it, "
        "not models trained at t.",
        "steps",
        _rows_with_curves,
        curves.accuracy,
    ),
    FigureSpec(
        "anytime-firing-rate",
        _ANYTIME,
        "Firing rate at step t",
        "Spikes per neuron and image at this step.",
        "steps",
        _rows_with_curves,
        curves.firing_rate,
    ),
    FigureSpec(
        "anytime-energy",
        _ANYTIME,
        "Energy up to step t",
        "Per image that is classified after t steps; what runs once for all steps is paid at the "
        "first.",
        "steps",
        _rows_with_curves,
        curves.energy,
        by_convention=True,
    ),
    FigureSpec(
        "learning-accuracy",
        _LEARNING,
        "Validation accuracy",
        "After each epoch, on images held out of the training images; mean over seeds.",
        "epochs",
        _rows_with_epochs,
        curves.validation_accuracy,
    ),
    FigureSpec(
        "learning-loss",
        _LEARNING,
        "Training loss",
        "Mean over the epoch's batches, of augmented images; mean over seeds.",
        "epochs",
        _rows_with_epochs,
        curves.training_loss,
    ),
    FigureSpec(
        "firing-rates",
        "Firing rates by layer and step",
        "Firing rate of each layer at each step",
        "Each block of columns is a layer, its columns the steps 1 to T. encoder.code is what the "
        "encoder emits: of a real-valued code the share of values that are not zero, which may lie "
        "above the colour scale, made for neurons.",
        "layers",
        lambda comparison: comparison.rates["row"].nunique(),
        rates.draw,
        has_own_legend=True,
    ),
    FigureSpec(
        "bill",
        "The encoder's bill",
        "Who spends the energy of an image",
        "Stem: the first layers of the backbone, which the encoder runs; coding: all else in the "
        "encoder; backbone: the rest.",
        "layers",
        lambda comparison: len(next(iter(comparison.bills.values()), ())),
        bill.draw,
        by_convention=True,
        has_own_legend=True,
        notes=bill.notes,
    ),
)
"""Every figure."""
