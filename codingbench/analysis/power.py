"""The smallest difference between two codings that their test can find."""

from typing import Final

import numpy as np

from codingbench.analysis.statistics import ALPHA, Differences

POWER: Final = 0.8
"""The probability with which a difference of the size of :func:`detectable` is found."""

_QUANTILES: Final = (np.arange(500) + 0.5) / 500
_DELTAS: Final = np.linspace(0, 1, 1001)  # between them, the power is interpolated


def detectable(found: Differences, comparisons: int) -> float:
    """Return the difference of accuracies, in [0, 1], that is significant with probability 0.8.

    The differences over seeds are taken as normal, with the mean of the pairs' variances; the
    estimate of that variance is taken as chi-square. The probability is averaged over 500 of its
    quantiles.

    Args:
        found: several pairs of codings. Their most frequent number of seeds counts.
        comparisons: the number of comparisons in the family; each is tested at 5 % of this part,
            the first level of Holm's correction.

    Returns:
        NaN if accuracies cannot differ as much.
    """
    from scipy.special import chdtri, ndtr

    seeds = int(np.bincount(found.seeds).argmax())
    of_seeds = float(np.average(found.of_seeds * found.seeds, weights=found.seeds - 1)) / seeds
    of_images = float(found.of_images.mean())
    if (error := np.sqrt(of_seeds + of_images)) == 0:
        return 0.0
    estimated = of_seeds * chdtri(seeds - 1, 1 - _QUANTILES) / (seeds - 1)
    same, none = np.ones(len(estimated)), np.zeros(len(estimated))
    tests = Differences(
        none, np.full(len(same), seeds), found.images, estimated, of_images * same, none
    )
    half = tests.half_width(ALPHA / comparisons)
    power = ndtr((_DELTAS[:, None] - half) / error).mean(1)
    return float(np.interp(POWER, power, _DELTAS, right=np.nan))
