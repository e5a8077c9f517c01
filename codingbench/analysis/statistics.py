"""Tests, confidence intervals and corrections for the difference between two codings.

Two codings A and B are run with the same S seeds (initial weights, order of the data) and tested on
the same I images: ``d[s, i] = right_A[s, i] - right_B[s, i]``. A claim about the codings must hold
for other seeds *and* other images, so both are random effects:

    d[s, i] = difference + seed[s] + image[i] + rest[s, i]
    Var(mean d) = var_seed / S + var_image / I + var_rest / (S I)

``of_seeds = var_s(mean_i d) / S`` estimates the first and the last term with S - 1 degrees of
freedom. ``of_images = var_i(mean_s d) / I - var_rest / (S I)`` estimates the middle one with about
I - 1. The
interval's half-width is the root of ``t(S-1)² of_seeds + t(I-1)² of_images``. Its coverage is at
least nominal: for normal d the squared error is a chi-square variable with one degree of freedom,
whose distribution function is concave, so the coverage of the weighted sum is no less than the
weighted mean of the coverages of the two parts, each of which is that of a t interval. (With
Satterthwaite's degrees of freedom, over 12 % of true null hypotheses would be rejected with two
seeds and 7 % with three, ``tests/test_statistics.py``.) Because two seeds may agree by chance, the
interval is also never narrower than that of these particular networks on other images.

scipy, which has the distributions, is imported late: a leaderboard of single runs needs none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int

ALPHA: Final = 0.05
"""The level of every test; confidence intervals have level 1 - ALPHA."""

LEAST_P: Final = 1e-30
"""Smaller p-values are reported as this value."""

_EQUAL: Final = 1e-9  # smaller differences between accuracies are rounding errors
_HALVINGS: Final = 60  # bisect the logarithm of p between LEAST_P and 1, to 1e-16

Numbers = Float[np.ndarray, " pair"]


@dataclass(frozen=True)
class Differences:
    """The mean differences of several pairs of codings, and the parts of their variances."""

    mean: Numbers
    seeds: Int[np.ndarray, " pair"]
    """The number of seeds S of each pair, at least 2."""
    images: int
    of_seeds: Numbers
    """Variance of the mean due to S seeds."""
    of_images: Numbers
    """Variance of the mean due to I images, the same for any number of seeds."""
    of_networks: Numbers
    """Variance of the mean over images for these particular networks."""

    def half_width(self, alpha: float = ALPHA) -> Numbers:
        """Return half of the confidence interval of level 1 - ``alpha`` around each mean."""
        return self._half_widths(np.full(len(self.mean), alpha))

    def p_values(self) -> Numbers:
        """Return two-sided p-values: the level at which the interval ends at 0.

        Identical predictions give 1.
        """
        t = _ratio(self.mean, self.of_seeds)
        p = np.maximum(2 * _tail(t, self.seeds - 1), LEAST_P)
        if (mixed := self.of_images > 0).any():
            p[mixed] = self._only(mixed)._bisected()
        t = _ratio(self.mean, self.of_networks)
        of_networks = 2 * _tail(t, _freedom(self.images))
        return np.where(of_networks > p, of_networks, p)

    def _half_widths(self, alpha: Numbers) -> Numbers:
        seeds, images = _quantile(alpha, self.seeds - 1), _quantile(alpha, _freedom(self.images))
        codings = seeds**2 * self.of_seeds + images**2 * self.of_images
        networks = images**2 * self.of_networks
        half: Numbers = np.sqrt(np.where(codings > networks, codings, networks))
        return half

    def _bisected(self) -> Numbers:
        low = np.full(len(self.mean), np.log(LEAST_P))
        high = np.zeros(len(self.mean))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            is_too_wide = self._half_widths(np.exp(middle)) > abs(self.mean)
            low, high = np.where(is_too_wide, middle, low), np.where(is_too_wide, high, middle)
        return np.exp(high)

    def _only(self, which: Bool[np.ndarray, " pair"]) -> "Differences":
        parts = (self.of_seeds, self.of_images, self.of_networks)
        return Differences(
            self.mean[which], self.seeds[which], self.images, *(part[which] for part in parts)
        )


def over_seeds_and_images(
    gram: Float[np.ndarray, "pair seed seed"],
    sums: Float[np.ndarray, "pair seed"],
    shared: Bool[np.ndarray, "pair seed"],
    images: int,
) -> Differences:
    """Return the differences of pairs of codings that were tested on the same images.

    Args:
        gram: ``sum_i d[s, i] d[r, i]``; 0 where a seed is not shared.
        sums: ``sum_i d[s, i]``; 0 where the seed is not shared.
        shared: the seeds that both codings of a pair have, at least two.
        images: the number of images I.
    """
    seeds = shared.sum(1)
    mean, of_seeds = _seed_part(sums / images, shared)
    over_images = gram.sum((1, 2)) / seeds**2 - images * mean**2  # sum_i (mean_s d - mean)²
    of_networks = np.maximum(over_images, 0) / _freedom(images) / images
    everything = np.trace(gram, axis1=1, axis2=2) - seeds * images * mean**2
    between_seeds = of_seeds * seeds * (seeds - 1) * images
    rest = everything - between_seeds - seeds * over_images
    of_rest = rest / ((seeds - 1) * _freedom(images)) / (seeds * images)
    of_images = np.maximum(of_networks - of_rest, 0)
    return Differences(mean, seeds, images, of_seeds, of_images, of_networks)


def over_seeds(
    differences: Float[np.ndarray, "pair seed"],
    shared: Bool[np.ndarray, "pair seed"],
    images: int,
) -> Differences:
    """Return the differences of pairs of codings without known predictions: t-tests over seeds.

    They hold for these test images only. An accuracy is a whole number of images, and two seeds may
    have the same number by chance. The variance is therefore at least that of rounding.

    Args:
        differences: of the accuracies, per seed; any value where a seed is not shared.
        shared: the seeds that both codings of a pair have, at least two.
        images: the number of images I.
    """
    seeds = shared.sum(1)
    mean, of_seeds = _seed_part(np.where(shared, differences, 0), shared)
    rounding = 1 / (12 * images**2) / seeds
    none = np.zeros(len(mean))
    return Differences(mean, seeds, images, np.maximum(of_seeds, rounding), none, none)


def gram_of(
    d: Int[np.ndarray, "seed image"],
) -> tuple[Float[np.ndarray, "1 seed seed"], Float[np.ndarray, "1 seed"]]:
    """Return ``gram`` and ``sums`` of :func:`over_seeds_and_images` for one pair."""
    exact = d.astype(np.float64)
    return (exact @ exact.T)[None], exact.sum(1)[None]


def holm(p: Numbers) -> Numbers:
    """Return p-values with Holm's correction, which controls the family-wise error rate.

    The k-th smallest of n is multiplied by n - k + 1, and is at least as large as the one before
    it. Source: Holm, Scandinavian Journal of Statistics 6, 1979.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p)
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(raised, 1)
    return adjusted


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p-value of McNemar's test of two networks.

    If they were equally good, each would be equally likely to be the one that is right: a binomial
    distribution with probability 1/2. The test says nothing about other seeds. Source: McNemar,
    Psychometrika 12, 1947.

    Args:
        only_a: number of images that only network a classifies correctly.
        only_b: number of images that only network b classifies correctly.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def bootstrap_interval(
    d: Int[np.ndarray, "seed image"], resamples: int = 1000
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of d.

    Seeds and images are resampled independently, with replacement: the pigeonhole bootstrap (Owen,
    Annals of Applied Statistics 1, 2007). It assumes no normal distribution. With two or three
    seeds it is too narrow, because they cannot show how much seeds vary. Every call gives the same
    numbers.
    """
    draws = np.random.default_rng(0)
    seeds, images = d.shape
    means = np.empty(resamples)
    for resample in range(resamples):
        weights = np.bincount(draws.integers(images, size=images), minlength=images)
        per_seed = d @ weights
        means[resample] = per_seed[draws.integers(seeds, size=seeds)].mean() / images
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def d_z(differences: Sequence[float]) -> float | None:
    """Return Cohen's effect size for pairs: mean / sample standard deviation of the differences.

    It is None for fewer than two differences, or if all are equal.
    """
    if len(differences) < 2 or np.ptp(differences) < _EQUAL:
        return None
    return float(np.mean(differences) / np.std(differences, ddof=1))


def mean_interval(
    mean: Float[np.ndarray, " row"],
    std: Float[np.ndarray, " row"],
    n: Int[np.ndarray, " row"],
    *,
    most: float = 1.0,
) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """Return both ends of the 95 % t interval of means over n seeds; NaN where n is 1.

    The ends are clipped to [0, ``most``], which by default fits accuracies.
    """
    low, high = np.full((2, len(mean)), np.nan)
    several = n > 1
    if several.any():
        t = _quantile(np.full(several.sum(), ALPHA), n[several] - 1)
        half = t * std[several] / np.sqrt(n[several])
        low[several] = np.maximum(mean[several] - half, 0)
        high[several] = np.minimum(mean[several] + half, most)
    return low, high


def seeds_needed(of_one_seed: float, of_images: float, images: int, width: float) -> int | None:
    """Return the least number of seeds at which the half-width of the interval is ``width``.

    Args:
        of_one_seed: variance of the mean with one seed, without the part due to images.
        of_images: the part due to images, which more seeds do not reduce.
        images: the number of images I.
        width: half-width of the interval of a difference of accuracies, in [0, 1].

    Returns:
        None if no number up to 10,000 is enough.
    """
    seeds = np.arange(2, 10_001)
    of_all = _quantile(np.full(len(seeds), ALPHA), seeds - 1) ** 2 * of_one_seed / seeds
    enough = seeds[of_all + images_floor(of_images, images) ** 2 <= width**2]
    return int(enough[0]) if len(enough) else None


def images_floor(of_images: float, images: int) -> float:
    """Return the half-width of the interval with infinitely many seeds, due to images alone."""
    return float(_quantile(np.array([ALPHA]), _freedom(images))[0] * np.sqrt(of_images))


def _freedom(images: int) -> int:
    return max(images - 1, 1)  # avoids a division by 0 for a single image


def _seed_part(
    means: Float[np.ndarray, "pair seed"], shared: Bool[np.ndarray, "pair seed"]
) -> tuple[Numbers, Numbers]:
    """Return the mean over shared seeds and its variance; values not shared must be 0."""
    seeds = shared.sum(1)
    mean = means.sum(1) / seeds
    squares = np.where(shared, (means - mean[:, None]) ** 2, 0).sum(1)
    return mean, squares / (seeds - 1) / seeds


def _ratio(mean: Numbers, variance: Numbers) -> Numbers:
    """Return mean / standard error: 0 for a mean of 0, infinite where only the variance is 0."""
    error = np.sqrt(variance)
    whole = np.divide(abs(mean), error, out=np.full(len(mean), np.inf), where=error > 0)
    return np.where(mean == 0, 0.0, whole)


def _tail(t: Numbers, freedom: Int[np.ndarray, " pair"] | int) -> Numbers:
    from scipy.special import stdtr

    tail: Numbers = stdtr(freedom, -t)
    return tail


def _quantile(alpha: Numbers, freedom: Int[np.ndarray, " pair"] | int) -> Numbers:
    """Return the t whose two tails together have the share ``alpha``."""
    from scipy.special import stdtrit

    t: Numbers = -stdtrit(freedom, alpha / 2)
    return t
