"""The data of a report: comparisons, each with the rows that are ranked against each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from codingbench.analysis.selection import Selection
from codingbench.energy import Pricing
from codingbench.report.styles import Style


@dataclass(frozen=True)
class Comparison:
    """The rows of one group of the leaderboard, and their measurements.

    A row's number in the whole leaderboard identifies it: it is the index of ``rows`` and
    ``energies`` and the column ``row`` of the other frames, which hold means over seeds.
    """

    heading: str
    conditions: str
    notes: list[str]
    """Sentences that a reader of the ranks must know."""
    rows: pd.DataFrame
    """Rows of :func:`codingbench.analysis.leaderboard.rows`, in its order."""
    cells: pd.DataFrame
    """The table ``cells``, limited to these rows."""
    energies: Mapping[str, pd.DataFrame]
    """Convention -> ``energy_uj`` per image, ``low`` and ``high``: its 95 % confidence
    interval over seeds."""
    detailed: list[int]
    """The rows that the frames below hold, in the order of ``rows``."""
    curves: pd.DataFrame
    """``row``, ``step``, ``accuracy``, ``low``, ``high``, ``firing_rate``, and a column
    for each convention: the energy of steps 1 to ``step``."""
    epochs: pd.DataFrame
    """``row``, ``epoch``, ``train_loss``, ``val_accuracy``."""
    rates: pd.DataFrame
    """``row``, ``layer``, ``step``, ``firing_rate``; layers in execution order."""
    bills: Mapping[str, pd.DataFrame]
    """Convention -> the detailed rows with the columns of :mod:`codingbench.analysis.bill`; may be
    empty."""

    @cached_property
    def labels(self) -> dict[int, str]:
        """The label of each row in figures, for example ``gac, T=4``."""
        rows = zip(self.rows.index, self.rows["encoder"], self.rows["num_steps"], strict=True)
        return {row: f"{encoder}, T={num_steps}" for row, encoder, num_steps in rows}


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows of a store."""

    folders: Sequence[Path]
    """The results folders."""
    selection: Selection
    """The cells that the report is about."""
    comparisons: Sequence[Comparison]
    """At least one."""
    failures: pd.DataFrame
    """The table ``failures``."""
    codings: Mapping[str, Style]
    """The style of each coding, the same in every figure."""
    pricings: Mapping[str, Pricing]
    """Name of an energy convention -> its pricing."""
    convention: str
    """Name of the convention that is shown first."""
