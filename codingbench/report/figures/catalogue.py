"""The catalogue of all figures of a comparison, in the order of the page."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from codingbench.report.comparison import Comparison
from codingbench.report.figures import bill, curves, pareto, rates
from codingbench.report.figures.base import Figure
from codingbench.report.styles import Style


@dataclass(frozen=True)
class FigureSpec:
    """The description of one figure: its texts, its data and the function that draws it."""

    name: str
    """Identifier, used in file names and in the page."""
    section: str
    """Heading in the page; the figures of one section are placed side by side."""
    title: str
    caption: str
    table: str
    """Table of the store that the figure needs."""
    rows: Callable[[Comparison], int]
    """Return the number of rows that can be drawn."""
    draw: Callable[[Comparison, Mapping[str, Style], str], Figure]
    """Draw the figure from the comparison, the styles and the name of the energy convention."""
    by_convention: bool = False
    """True if the figure depends on the energy convention."""
    has_own_legend: bool = False
    """True if its colours do not stand for codings, so that it needs a legend of its own."""
    notes: Callable[[Comparison, str], Iterable[str]] = lambda comparison, convention: ()
    """Return sentences to print below the figure, for a comparison and a convention."""


def _rows_with_curves(comparison: Comparison) -> int:
    return comparison.curves["row"].nunique()


def _rows_with_epochs(comparison: Comparison) -> int:
    return comparison.epochs["row"].nunique()


_ANYTIME, _LEARNING = "Accuracy and cost after each time step", "Training"

FIGURES: Final = (
    FigureSpec(
        "pareto",
        "Accuracy and energy",
        "Accuracy over energy per image",
        "Up and to the left is better. Points are means over seeds; bars are 95 % confidence "
        "intervals. A hollow point is a single run without an interval. Lines join the values of T "
        "of one coding. The dotted line is the Pareto front of the means; differences along it "
        "need not be significant.",
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
        "The prediction after step t is the mean of the first t logits. Small points are the first "
        "t steps of one T-step model, not models trained with t steps.",
        "steps",
        _rows_with_curves,
        curves.accuracy,
    ),
    FigureSpec(
        "anytime-firing-rate",
        _ANYTIME,
        "Firing rate at step t",
        "Spikes per neuron and image at step t.",
        "steps",
        _rows_with_curves,
        curves.firing_rate,
    ),
    FigureSpec(
        "anytime-energy",
        _ANYTIME,
        "Energy up to step t",
        "Energy per image if it is classified after t steps. Layers that run once for all steps "
        "are counted at step 1.",
        "steps",
        _rows_with_curves,
        curves.energy,
        by_convention=True,
    ),
    FigureSpec(
        "learning-accuracy",
        _LEARNING,
        "Validation accuracy",
        "Accuracy after each epoch on images held out of the training set; mean over seeds.",
        "epochs",
        _rows_with_epochs,
        curves.validation_accuracy,
    ),
    FigureSpec(
        "learning-loss",
        _LEARNING,
        "Training loss",
        "Mean loss over the batches of an epoch, with augmentation; mean over seeds.",
        "epochs",
        _rows_with_epochs,
        curves.training_loss,
    ),
    FigureSpec(
        "firing-rates",
        "Firing rates by layer and step",
        "Firing rate of each layer at each step",
        "Each block of columns is a layer; its columns are the steps 1 to T. encoder.code is the "
        "output of the encoder. For a real-valued code its rate is the share of non-zero values, "
        "which may exceed the colour scale, because the scale covers neurons only.",
        "layers",
        lambda comparison: comparison.rates["row"].nunique(),
        rates.draw,
        has_own_legend=True,
    ),
    FigureSpec(
        "bill",
        "The encoder's bill",
        "Energy per image by part of the network",
        "Stem: the first layers of the backbone, which the encoder runs. Coding: the rest of the "
        "encoder. Backbone: everything after the encoder.",
        "layers",
        lambda comparison: len(next(iter(comparison.bills.values()), ())),
        bill.draw,
        by_convention=True,
        has_own_legend=True,
        notes=bill.notes,
    ),
)
"""Every figure, in the order of the page."""
