"""Is one coding better than another? Tests, intervals and corrections for paired runs.

Two codings A and B are run with the same S seeds (initial weights, order of the data) and tested on
the same I images: ``d[s, i] = right_A[s, i] - right_B[s, i]``. A claim about the codings must hold
for other seeds *and* other images, so both are random effects:

    d[s, i] = difference + seed[s] + image[i] + rest[s, i]
    Var(mean d) = var_seed / S + var_image / I + var_rest / (S I)

``of_seeds = var_s(mean_i d) / S`` estimates the first and the last term with S - 1 degrees of
freedom; ``of_images = var_i(mean_s d) / I - var_rest / (S I)`` the middle one with about I - 1. The
interval's half-width is the root of ``t(S-1)² of_seeds + t(I-1)² of_images``. Its coverage is at
least nominal: for normal d the squared error is a chi-square variable with one degree of freedom,
whose distribution function is concave, so the coverage of the weighted sum is no less than the
weighted mean of the coverages of the two parts, each of which is that of a t interval. (Degrees of
freedom by Satterthwaite reject over 12 % of true null hypotheses with two seeds and 7 % with
three, ``tests/test_statistics.py``.) Nor is the interval ever narrower than that of these very
networks on other images: two seeds may agree by chance.

scipy has the distributions. It is imported late: a leaderboard of single runs needs none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int

ALPHA: Final = 0.05
"""Level of every test; intervals are of 1 - ALPHA."""

LEAST_P: Final = 1e-30
"""Smaller p-values are given as this one."""

_EQUAL: Final = 1e-9  # accuracies that differ by less differ by rounding
_HALVINGS: Final = 60  # of the logarithm of p between LEAST_P and 1: to 1e-16

Numbers = Float[np.ndarray, " pair"]


@dataclass(frozen=True)
class Differences:
    """Mean differences of several pairs of codings and what their variances consist of."""

    mean: Numbers
    seeds: Int[np.ndarray, " pair"]
    """S of each pair, at least 2."""
    images: int
    of_seeds: Numbers
    """Variance of the mean that comes of S seeds."""
    of_images: Numbers
    """Variance of the mean that comes of I images, the same for any number of seeds."""
    of_networks: Numbers
    """Variance of the mean over images if the seeds were the only ones there are."""

    def half_width(self, alpha: float = ALPHA) -> Numbers:
        """Half of the interval of confidence 1 - ``alpha`` around each mean."""
        return self._reaches(np.full(len(self.mean), alpha))

    def p_values(self) -> Numbers:
        """Two-sided: the level at which the interval ends at 0. Identical predictions give 1."""
        t = _ratio(self.mean, self.of_seeds)
        p = np.maximum(2 * _tail(t, self.seeds - 1), LEAST_P)
        if (mixed := self.of_images > 0).any():
            p[mixed] = self._only(mixed)._searched()
        t = _ratio(self.mean, self.of_networks)
        of_networks = 2 * _tail(t, _freedom(self.images))
        return np.where(of_networks > p, of_networks, p)

    def _reaches(self, alpha: Numbers) -> Numbers:
        seeds, images = _quantile(alpha, self.seeds - 1), _quantile(alpha, _freedom(self.images))
        codings = seeds**2 * self.of_seeds + images**2 * self.of_images
        networks = images**2 * self.of_networks
        half: Numbers = np.sqrt(np.where(codings > networks, codings, networks))
        return half

    def _searched(self) -> Numbers:
        low = np.full(len(self.mean), np.log(LEAST_P))
        high = np.zeros(len(self.mean))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            is_too_wide = self._reaches(np.exp(middle)) > abs(self.mean)
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
    """The differences of pairs of codings tested on the same images.

    Args:
        gram: ``sum_i d[s, i] d[r, i]``; 0 where a seed is not shared.
        sums: ``sum_i d[s, i]``; 0 where the seed is not shared.
        shared: the seeds that both codings of a pair have, at least two.
        images: I.
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
    """The differences of pairs of codings whose predictions are not known: t-tests over seeds.

    They hold for these test images. An accuracy is a whole number of images, so a variance below
    that of rounding to it is not believed: two seeds may have the same number by chance.

    Args:
        differences: of the accuracies, per seed; anything where a seed is not shared.
        shared: the seeds that both codings of a pair have, at least two.
        images: I.
    """
    seeds = shared.sum(1)
    mean, of_seeds = _seed_part(np.where(shared, differences, 0), shared)
    rounding = 1 / (12 * images**2) / seeds
    none = np.zeros(len(mean))
    return Differences(mean, seeds, images, np.maximum(of_seeds, rounding), none, none)


def gram_of(
    d: Int[np.ndarray, "seed image"],
) -> tuple[Float[np.ndarray, "1 seed seed"], Float[np.ndarray, "1 seed"]]:
    """``gram`` and ``sums`` of :func:`over_seeds_and_images` for one pair."""
    exact = d.astype(np.float64)
    return (exact @ exact.T)[None], exact.sum(1)[None]


def holm(p: Numbers) -> Numbers:
    """The p-values adjusted so that of all of them together 5 % err: Holm, Scand. J. Stat. 6, 1979.

    The k-th smallest of n is multiplied by n - k + 1, and no smaller than the one before it.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p)
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(raised, 1)
    return adjusted


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of two networks, from the images that one alone gets right.

    Were they equally good, either would be as likely to be the one: binomial with 1/2. It says
    nothing of other seeds. McNemar, Psychometrika 12, 1947.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def bootstrap_interval(
    d: Int[np.ndarray, "seed image"], resamples: int = 1000
) -> tuple[float, float]:
    """Where the middle 95 % of the means of d lie when seeds and images are both drawn anew.

    Seeds and images are resampled independently, with replacement: the pigeonhole bootstrap (Owen,
    Annals of Applied Statistics 1, 2007). Two or three seeds cannot show how much seeds vary, so it
    is then too narrow; it asks for no normal distribution. Same numbers in every call.
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
    """Cohen's effect size for pairs: mean / sample standard deviation of the differences per seed.

    None for less than two of them, or if all are equal.
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
    """Both ends of the t interval of what lies within [0, ``most``], accuracies if it is not given;
    NaN where n is 1."""
    low, high = np.full((2, len(mean)), np.nan)
    several = n > 1
    if several.any():
        t = _quantile(np.full(several.sum(), ALPHA), n[several] - 1)
        half = t * std[several] / np.sqrt(n[several])
        low[several] = np.maximum(mean[several] - half, 0)
        high[several] = np.minimum(mean[several] + half, most)
    return low, high


def seeds_needed(of_one_seed: float, of_images: float, images: int, width: float) -> int | None:
    """The least number of seeds at which an interval's half-width is ``width`` or less.

    Args:
        of_one_seed: variance of the mean with one seed, the images' part left out.
        of_images: the images' part, which no seed makes smaller.
        images: I.
        width: of a difference, in [0, 1].

    Returns:
        None if no number is enough, or none up to 10,000.
    """
    seeds = np.arange(2, 10_001)
    of_all = _quantile(np.full(len(seeds), ALPHA), seeds - 1) ** 2 * of_one_seed / seeds
    enough = seeds[of_all + images_floor(of_images, images) ** 2 <= width**2]
    return int(enough[0]) if len(enough) else None


def images_floor(of_images: float, images: int) -> float:
    """Half of the interval that the test images alone leave, however many seeds there are."""
    return float(_quantile(np.array([ALPHA]), _freedom(images))[0] * np.sqrt(of_images))


def _freedom(images: int) -> int:
    return max(images - 1, 1)  # a single image says nothing, and must not divide by 0


def _seed_part(
    means: Float[np.ndarray, "pair seed"], shared: Bool[np.ndarray, "pair seed"]
) -> tuple[Numbers, Numbers]:
    """The mean over shared seeds, and its variance. What is not shared must be 0."""
    seeds = shared.sum(1)
    mean = means.sum(1) / seeds
    squares = np.where(shared, (means - mean[:, None]) ** 2, 0).sum(1)
    return mean, squares / (seeds - 1) / seeds


def _ratio(mean: Numbers, variance: Numbers) -> Numbers:
    """mean / standard error; 0 for a mean of 0, infinite where only the variance is 0."""
    error = np.sqrt(variance)
    whole = np.divide(abs(mean), error, out=np.full(len(mean), np.inf), where=error > 0)
    return np.where(mean == 0, 0.0, whole)


def _tail(t: Numbers, freedom: Int[np.ndarray, " pair"] | int) -> Numbers:
    from scipy.special import stdtr

    tail: Numbers = stdtr(freedom, -t)
    return tail


def _quantile(alpha: Numbers, freedom: Int[np.ndarray, " pair"] | int) -> Numbers:
    """t that a share ``alpha`` exceeds on either side, together."""
    from scipy.special import stdtrit

    t: Numbers = -stdtrit(freedom, alpha / 2)
    return t
