"""What the report is made of: comparisons, and the rows that are ranked in each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from codingbench.energy import Pricing
from codingbench.report.styles import Style


@dataclass(frozen=True)
class Comparison:
    """The rows of one group of the leaderboard and what was measured of them.

    ``row`` is a row's number in the whole leaderboard: the index of ``rows`` and of ``energies``, a
    column of the other frames, which hold means over the seeds.
    """

    heading: str
    conditions: str
    notes: list[str]
    """What must be known to read the ranks."""
    rows: pd.DataFrame
    """Of :func:`codingbench.analysis.leaderboard.rows`, in its order."""
    cells: pd.DataFrame
    """The table ``cells``, of these rows."""
    energies: Mapping[str, pd.DataFrame]
    """Convention -> ``energy_uj`` per image, ``low`` and ``high``: its 95 % interval over seeds."""
    detailed: list[int]
    """The rows that the frames below are about, in the order of ``rows``."""
    curves: pd.DataFrame
    """``row``, ``step``, ``accuracy``, ``low``, ``high``, ``firing_rate``, a column of energies up
    to the step for each convention."""
    epochs: pd.DataFrame
    """``row``, ``epoch``, ``train_loss``, ``val_accuracy``."""
    rates: pd.DataFrame
    """``row``, ``layer``, ``step``, ``firing_rate``; layers in the order of their execution."""
    bills: Mapping[str, pd.DataFrame]
    """Convention -> the detailed rows with the columns of ``leaderboard.bill``; may be empty."""

    @cached_property
    def labels(self) -> dict[int, str]:
        """A row's name beside others."""
        rows = zip(self.rows.index, self.rows["encoder"], self.rows["num_steps"], strict=True)
        return {row: f"{encoder}, T={num_steps}" for row, encoder, num_steps in rows}


@dataclass(frozen=True)
class ReportData:
    """All that is shown of a store."""

    folder: Path
    """Of the store."""
    comparisons: Sequence[Comparison]
    """At least one."""
    failures: pd.DataFrame
    """The table ``failures``."""
    codings: Mapping[str, Style]
    """The style of each coding, the same in every figure."""
    pricings: Mapping[str, Pricing]
    """The pricing by each energy convention, by the convention's name."""
    convention: str
    """The one that is shown first, by its name."""
