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
        name="pareto",
        section="Accuracy and energy",
        title="Accuracy over energy per image",
        caption=(
            "Up and to the left is better. Points are means over seeds; bars are 95 % "
            "confidence intervals. A hollow point is a single run without an interval. Lines "
            "join the values of T of one coding. The dotted line is the Pareto front of the "
            "means; differences along it need not be significant."
        ),
        table="cells",
        rows=lambda comparison: len(comparison.rows),
        draw=pareto.draw,
        by_convention=True,
        notes=pareto.notes,
    ),
    FigureSpec(
        name="anytime-accuracy",
        section=_ANYTIME,
        title="Accuracy after t steps",
        caption=(
            "The prediction after step t is the mean of the first t logits. Small points are "
            "the first t steps of one T-step model, not models trained with t steps."
        ),
        table="steps",
        rows=_rows_with_curves,
        draw=curves.accuracy,
    ),
    FigureSpec(
        name="anytime-firing-rate",
        section=_ANYTIME,
        title="Firing rate at step t",
        caption="Spikes per neuron and image at step t.",
        table="steps",
        rows=_rows_with_curves,
        draw=curves.firing_rate,
    ),
    FigureSpec(
        name="anytime-energy",
        section=_ANYTIME,
        title="Energy up to step t",
        caption=(
            "Energy per image if it is classified after t steps. Layers that run once for all "
            "steps are counted at step 1."
        ),
        table="steps",
        rows=_rows_with_curves,
        draw=curves.energy,
        by_convention=True,
        notes=curves.energy_notes,
    ),
    FigureSpec(
        name="learning-accuracy",
        section=_LEARNING,
        title="Validation accuracy",
        caption="Accuracy after each epoch on validation images; mean over seeds.",
        table="epochs",
        rows=_rows_with_epochs,
        draw=curves.validation_accuracy,
    ),
    FigureSpec(
        name="learning-loss",
        section=_LEARNING,
        title="Training loss",
        caption="Mean loss over the batches of an epoch, with augmentation; mean over seeds.",
        table="epochs",
        rows=_rows_with_epochs,
        draw=curves.training_loss,
    ),
    FigureSpec(
        name="firing-rates",
        section="Firing rates by layer and step",
        title="Firing rate of each layer at each step",
        caption=(
            "Each block of columns is a layer; its columns are the steps 1 to T. encoder.code "
            "is the output of the encoder. For a real-valued code its rate is the share of "
            "non-zero values, which may exceed the colour scale, because the scale covers neurons "
            "only."
        ),
        table="layers",
        rows=lambda comparison: comparison.rates["row"].nunique(),
        draw=rates.draw,
        has_own_legend=True,
    ),
    FigureSpec(
        name="bill",
        section="The encoder's bill",
        title="Energy per image by part of the network",
        caption=(
            "Stem: the first layers of the backbone, which the encoder runs. Coding: the rest "
            "of the encoder. Backbone: everything after the encoder."
        ),
        table="layers",
        rows=lambda comparison: len(next(iter(comparison.bills.values()), ())),
        draw=bill.draw,
        by_convention=True,
        has_own_legend=True,
        notes=bill.notes,
    ),
)
"""Every figure, in the order of the page."""
