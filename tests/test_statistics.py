from typing import Any

import numpy as np
import pytest
import scipy.stats

from codingbench.analysis.power import detectable
from codingbench.analysis.statistics import (
    Differences,
    bootstrap_interval,
    d_z,
    gram_of,
    holm,
    images_floor,
    mcnemar,
    mean_interval,
    over_seeds,
    over_seeds_and_images,
    seeds_needed,
)

HAND = np.array([[1, 1, 0, 1], [1, 0, 0, 1]])
"""Two seeds, four images. The seeds have means 3/4 and 1/2, the images 1, 1/2, 0 and 1."""


def differences(d: Any) -> Differences:
    array = np.asarray(d)
    return over_seeds_and_images(*gram_of(array), np.ones((1, len(array)), bool), array.shape[1])


def test_a_variance_by_hand_is_split_into_seeds_and_images() -> None:
    found = differences(HAND)
    assert found.mean.tolist() == [0.625]
    # (1/8)^2 + (1/8)^2 over 1 degree of freedom and 2 seeds
    assert found.of_seeds == pytest.approx([1 / 64])
    # squares 9/64, 1/64, 25/64, 9/64 over 3 degrees of freedom and 4 images
    assert found.of_networks == pytest.approx([44 / 64 / 12])
    # the rest: residuals of 1/8 six times and 3/8 twice, over 3 degrees of freedom and 8 runs
    assert found.of_images == pytest.approx([44 / 64 / 12 - 24 / 64 / 3 / 8])


def test_an_interval_by_hand_adds_both_parts_each_with_its_own_t() -> None:
    # t of 1 and of 3 degrees of freedom: 12.7062 and 3.18245
    expected = (12.7062**2 / 64 + 3.18245**2 / 24) ** 0.5
    assert differences(HAND).half_width() == pytest.approx([expected], rel=1e-5)


def test_variances_equal_those_of_a_two_way_analysis_of_variance() -> None:
    d = np.random.default_rng(1).integers(-1, 2, (4, 50)).astype(float)
    between_seeds = d.mean(1, keepdims=True) - d.mean()
    between_images = d.mean(0) - d.mean()
    rest = d - d.mean() - between_seeds - between_images
    ms_images = 4 * (between_images**2).sum() / 49
    ms_rest = (rest**2).sum() / (3 * 49)
    found = differences(d)
    assert found.of_seeds == pytest.approx([50 * (between_seeds**2).sum() / 3 / 200])
    assert found.of_networks == pytest.approx([ms_images / 200])
    assert found.of_images == pytest.approx([max(0, ms_images - ms_rest) / 200])


def test_p_is_the_level_at_which_the_interval_ends_at_zero() -> None:
    draws = np.random.default_rng(2)
    images = draws.random(80)[None] < 0.5
    d = (images & (draws.random((3, 80)) < 0.7)).astype(int) * draws.choice([1, 1, 1, -1], (3, 80))
    found = differences(d)
    (p,) = found.p_values()
    assert 1e-6 < p < 0.5 and found.of_images[0] > 0
    assert found.half_width(p) == pytest.approx(abs(found.mean), rel=1e-9)


def test_without_differences_between_images_it_is_the_paired_t_test_over_seeds() -> None:
    a, b = np.array([0.80, 0.83, 0.86, 0.81]), np.array([0.79, 0.80, 0.84, 0.81])
    found = over_seeds((a - b)[None], np.ones((1, 4), bool), 10_000)
    reference = scipy.stats.ttest_rel(a, b)
    assert found.p_values() == pytest.approx([reference.pvalue])
    interval = reference.confidence_interval()
    assert found.mean - found.half_width() == pytest.approx([interval.low])


def test_without_differences_between_seeds_it_is_the_t_test_over_images() -> None:
    one = np.random.default_rng(3).choice([-1, 0, 0, 1, 1], 60)
    found = differences([one, one, one])
    assert found.p_values() == pytest.approx([scipy.stats.ttest_1samp(one, 0).pvalue])


def test_a_seed_that_is_not_shared_does_not_count() -> None:
    gram, sums = np.zeros((1, 3, 3)), np.zeros((1, 3))
    gram[:, :2, :2], sums[:, :2] = gram_of(HAND)
    padded = over_seeds_and_images(gram, sums, np.array([[True, True, False]]), 4)
    assert padded.seeds.tolist() == [2]
    assert padded.half_width() == pytest.approx(differences(HAND).half_width())
    assert padded.p_values() == pytest.approx(differences(HAND).p_values())


def test_identical_predictions_have_p_1_and_an_interval_of_nothing() -> None:
    found = differences(np.zeros((3, 100), int))
    assert found.p_values().tolist() == [1.0] and found.half_width().tolist() == [0.0]


def test_two_seeds_that_agree_by_chance_are_no_certainty() -> None:
    # Both gain 3 of 100 images, 10 against 7 that only one gets right, so neither pair differs.
    d = np.zeros((2, 100), int)
    d[0, :10], d[0, 10:17], d[1, 50:60], d[1, 60:67] = 1, -1, 1, -1
    found = differences(d)
    assert found.of_seeds.tolist() == [0.0]
    assert found.p_values()[0] > 0.2
    accuracies = over_seeds(np.array([[0.03, 0.03]]), np.ones((1, 2), bool), 100)
    assert accuracies.p_values()[0] > 0.03


def rejections(p: Any) -> float:
    return float((np.asarray(p) <= 0.05).mean())


RUNS = 1000
MOST = 0.05 + 3 * (0.05 * 0.95 / RUNS) ** 0.5  # 7.1 %: three binomial standard deviations above


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_about_five_percent_of_equal_codings_differ_significantly_and_by_mcnemar_far_more(
    seeds: int,
) -> None:
    """Return 1,000 pairs that differ by seed, image and chance, but not on average."""
    draws, images = np.random.default_rng(4), 250
    ours, pooled = [], []
    for _ in range(RUNS):
        ease = draws.normal(1, 1, images)
        right = [
            ease + draws.normal(0, 0.4, images) + draws.normal(0, 0.3, (seeds, 1))
            > draws.normal(0, 0.5, (seeds, images))
            for _ in "ab"
        ]
        d = right[0].astype(int) - right[1]
        ours.append(differences(d).p_values()[0])
        pooled.append(mcnemar(int((d > 0).sum()), int((d < 0).sum())))
    errs = (
        f"{rejections(ours):.1%} differ significantly, {rejections(pooled):.1%} by pooled McNemar"
    )
    print(f"{seeds} seeds, {RUNS} pairs of equal codings: {errs}")  # pytest -s; README quotes it
    assert rejections(ours) < MOST
    assert rejections(pooled) > 0.2


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.9])
def test_whatever_part_is_the_images_at_most_five_percent_err_where_satterthwaite_errs_more(
    seeds: int, share: float
) -> None:
    """Return normal differences of 20,000 pairs with a known contribution of the images."""
    draws, runs = np.random.default_rng(5), 20_000
    of_seeds = (1 - share) * draws.chisquare(seeds - 1, runs) / (seeds - 1)
    of_images, none = np.full(runs, share), np.zeros(runs)
    found = Differences(
        draws.normal(0, 1, runs), np.full(runs, seeds), 10_000, of_seeds, of_images, none
    )
    bound = 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5  # 5.5 %
    assert (abs(found.mean) > found.half_width()).mean() < bound
    if share == 0.05 and seeds < 5:
        variance = of_seeds + of_images
        freedom = variance**2 / (of_seeds**2 / (seeds - 1))
        p = 2 * scipy.stats.t.sf(abs(found.mean) / variance**0.5, freedom)
        assert rejections(p) > {2: 0.12, 3: 0.07}[seeds]


def test_a_real_difference_is_found() -> None:
    """Return 200 pairs with a difference of 20 points on 250 images and three seeds."""
    draws, found = np.random.default_rng(6), []
    for _ in range(200):
        a, b = (draws.random((3, 250)) < chance for chance in (0.8, 0.6))
        found.append(differences(a.astype(int) - b).p_values()[0])
    assert rejections(found) > 0.9


def test_rare_collapses_of_a_seed_break_the_coverage_of_the_interval() -> None:
    """One seed in ten of one coding collapses to chance; the others vary by half a point."""
    draws, runs, seeds = np.random.default_rng(9), 2000, 3
    is_gone = draws.random((runs, seeds)) < 0.1
    a = np.where(is_gone, 0.1, 0.8 + draws.normal(0, 0.005, (runs, seeds)))
    d = a - (0.75 + draws.normal(0, 0.005, (runs, seeds)))
    found = over_seeds(d, np.ones((runs, seeds), bool), 10_000)
    truth = 0.1 * 0.1 + 0.9 * 0.8 - 0.75
    coverage = (abs(found.mean - truth) <= found.half_width()).mean()
    print(f"one seed in ten collapses: coverage {coverage:.2f}")  # pytest -s; README quotes it
    assert coverage < 0.5


def test_the_difference_that_is_detectable_is_found_in_80_percent_of_simulated_pairs() -> None:
    draws, runs, seeds, comparisons = np.random.default_rng(10), 20_000, 3, 4
    d = draws.normal(0, 0.01, (runs, seeds))
    shared = np.ones((runs, seeds), bool)
    smallest = detectable(over_seeds(d, shared, 10**6), comparisons)
    assert 0.03 < smallest < 0.2
    p = over_seeds(d + smallest, shared, 10**6).p_values()
    assert (p <= 0.05 / comparisons).mean() == pytest.approx(0.8, abs=0.01)


def test_where_no_accuracy_differs_enough_nothing_is_detectable() -> None:
    d = np.array([[0.5, -0.5]])
    assert np.isnan(detectable(over_seeds(d, np.ones((1, 2), bool), 100), 10))


def test_holm_by_hand() -> None:
    # sorted: 4 x 0.005, 3 x 0.01, 2 x 0.03; the last, 1 x 0.04, is no smaller than the one before
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.5, 0.9, 0.7])).tolist() == [1, 1, 1]
    assert holm(np.array([0.2])).tolist() == [0.2] and holm(np.array([])).tolist() == []


def test_mcnemar_by_hand_and_as_the_binomial_test() -> None:
    # 12 images, 2 or fewer on one side: 2 (1 + 12 + 66) / 2^12
    assert mcnemar(10, 2) == mcnemar(2, 10) == pytest.approx(158 / 4096)
    for only_a, only_b in [(3, 3), (0, 7), (30, 18), (500, 580)]:
        reference = scipy.stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
        assert mcnemar(only_a, only_b) == pytest.approx(reference)
    assert mcnemar(0, 0) == 1.0


def test_one_run_resampled_is_the_bootstrap_of_its_images() -> None:
    d = np.random.default_rng(7).choice([-1, 0, 0, 1, 1], (1, 400))
    reference = scipy.stats.bootstrap(d, np.mean, n_resamples=4000, method="percentile", rng=8)
    # ends of 95 % by 1,000 resamples have a standard error of 0.07 standard errors, here 0.0027
    ends = (reference.confidence_interval.low, reference.confidence_interval.high)
    assert bootstrap_interval(d) == pytest.approx(ends, abs=0.01)


def test_resampling_draws_seeds_as_well_as_images() -> None:
    # Every image agrees within a seed, so all that varies is which seeds are drawn.
    d = np.repeat([[1], [0], [-1], [0]], 50, axis=1)
    low, high = bootstrap_interval(d)
    # the mean of 4 draws from 1, 0, -1, 0: at most -0.75 in 9 of 256 cases, -0.5 in 37
    assert (low, high) == (-0.75, 0.75) == bootstrap_interval(d)
    assert bootstrap_interval(np.zeros((2, 10), int)) == (0, 0)


def test_the_effect_size_is_the_mean_in_deviations() -> None:
    assert d_z([0.02, 0.06]) == pytest.approx(2**0.5)  # 0.04 / (0.04 / sqrt 2)
    assert d_z([0.83 - 0.82, 0.84 - 0.83]) is None  # equal but for rounding
    assert d_z([0.1]) is None and d_z([]) is None


def test_an_interval_of_a_mean_is_students_and_stays_within_0_and_1() -> None:
    mean, std, n = np.array([0.83, 0.99, 0.5]), np.array([0.03, 0.02, np.nan]), np.array([3, 2, 1])
    low, high = mean_interval(mean, std, n)
    # t of 2 degrees of freedom is 4.302653; 4.302653 x 0.03 / sqrt 3 = 0.074524
    assert (low[0], high[0]) == pytest.approx((0.755476, 0.904524), abs=1e-6)
    reference = scipy.stats.t.interval(0.95, 1, 0.99, 0.02 / 2**0.5)
    assert low[1] == pytest.approx(reference[0]) and high[1] == 1.0
    assert np.isnan([low[2], high[2]]).all()


def test_the_seeds_needed_are_the_least_that_suffice() -> None:
    def half_width(seeds: int) -> float:
        parts = (np.array([value]) for value in (0.01**2 / seeds, 0.002**2, 0.0))
        return float(Differences(np.zeros(1), np.array([seeds]), 1000, *parts).half_width()[0])

    needed = seeds_needed(0.01**2, 0.002**2, 1000, 0.01)
    assert needed is not None
    assert half_width(needed) <= 0.01 < half_width(needed - 1)


def test_no_number_of_seeds_makes_up_for_few_images() -> None:
    # z of 95 % is 1.9623 for 1,000 images
    assert images_floor(0.006**2, 1000) == pytest.approx(0.011774, abs=1e-6)
    assert seeds_needed(0.0, 0.006**2, 1000, 0.01) is None
    assert seeds_needed(0.0, 0.005**2, 1000, 0.01) == 2
