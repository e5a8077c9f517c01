"""Price rows by every energy convention, to see whether the order depends on the convention."""

from typing import Final

import pandas as pd

from codingbench.analysis.leaderboard import COLUMNS, GROUP, seed_means
from codingbench.energy import COMPARED, CONVENTIONS, DEFAULT_PRICING, Pricing, Technology

ENERGY_COLUMNS: Final = {name: CONVENTIONS[name].column for name in COMPARED}
"""The column of microjoules per image of each convention, averaged over seeds."""

RANK_COLUMNS: Final = {name: f"energy_rank_{name.replace('-', '_')}" for name in COMPARED}
"""The column of ranks of each convention: 1 is the cheapest row of the group, ties share a rank;
rows whose energies are lower bounds have none."""

RANKS_FLIP: Final = "energy_rank_flips"
"""The column that is true where the rank of a row depends on the convention."""


def with_every_convention(
    table: pd.DataFrame, cells: pd.DataFrame, technology: Technology = DEFAULT_PRICING.technology
) -> pd.DataFrame:
    """Replace the energy of each row by energies and ranks by every convention.

    Args:
        table: from :func:`codingbench.analysis.leaderboard.rows`.
        cells: the table ``cells`` that ``table`` was made from.
        technology: the prices of single operations.

    Returns:
        The rows without ``energy_uj`` and ``energy_convention``, but with ``ENERGY_COLUMNS``,
        ``RANK_COLUMNS`` and ``RANKS_FLIP``.
    """
    priced = {name: Pricing(CONVENTIONS[name], technology).energy_uj(cells) for name in COMPARED}
    energies = seed_means(table, pd.DataFrame(priced).set_axis(cells["key"]))
    known = energies.where(~table["energy_is_lower_bound"].astype(bool))
    ranks = known.groupby([table[name] for name in GROUP], dropna=False).rank(method="min")
    wide = table.join(energies.rename(columns=ENERGY_COLUMNS)).join(
        ranks.astype("Int64").rename(columns=RANK_COLUMNS)
    )
    wide[RANKS_FLIP] = ranks.nunique(axis=1) > 1
    kept = [name for name in COLUMNS if name not in ("energy_uj", "energy_convention")]
    pairs = zip(ENERGY_COLUMNS.values(), RANK_COLUMNS.values(), strict=True)
    return wide[[*kept, *(name for pair in pairs for name in pair), RANKS_FLIP]]
