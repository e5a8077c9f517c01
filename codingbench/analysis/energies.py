"""Several energies of each row of a leaderboard, one for each convention."""

from collections.abc import Sequence

import pandas as pd

from codingbench.analysis.leaderboard import seed_means
from codingbench.energy import Pricing


def with_energies(
    table: pd.DataFrame, cells: pd.DataFrame, pricings: Sequence[Pricing]
) -> pd.DataFrame:
    """Return the rows with a column of microjoules per image for each convention.

    The columns are named like ``energy_exact_uj`` and are means over seeds. With a single
    convention, whose energies are in ``energy_uj``, nothing is added.

    Args:
        table: from :func:`codingbench.analysis.leaderboard.rows`.
        cells: the table ``cells`` that ``table`` was made from.
        pricings: the conventions.
    """
    if len(pricings) < 2:
        return table
    priced = {pricing.convention.column: pricing.energy_uj(cells) for pricing in pricings}
    return table.join(seed_means(table, pd.DataFrame(priced).set_axis(cells["key"])))
