from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from edgelm.profile import bootstrap

Series = NDArray[np.float64]


def correlated(seed: int, count: int, rho: float) -> Series:
    """An autoregressive series of the first order with unit variance."""
    shocks = np.random.default_rng(seed).normal(size=count)
    series = np.empty(count)
    series[0] = shocks[0]
    for index in range(1, count):
        series[index] = rho * series[index - 1] + np.sqrt(1 - rho**2) * shocks[index]
    return series


@pytest.mark.parametrize("percent", [50, 90, None])
def test_of_independent_samples_the_interval_is_that_of_scipy(percent: float | None) -> None:
    samples = np.random.default_rng(4).gamma(3.0, 2.0, 400)

    def statistic(x: Series, axis: int = -1) -> Series:
        if percent is None:
            return np.asarray(x.mean(axis=axis))
        return np.asarray(np.percentile(x, percent, axis=axis, method="inverted_cdf"))

    theirs = scipy.stats.bootstrap((samples,), statistic, method="percentile", n_resamples=4000, rng=1)
    ours = bootstrap.estimate(samples, percent)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.value == statistic(samples)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.15 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.15 * width)


@pytest.mark.parametrize("rho", [0.3, 0.5, 0.7])
def test_blocks_are_as_long_as_theory_says_for_an_autoregressive_series(rho: float) -> None:
    # G = 2 rho / (1 - rho)^2 and D = 4/3 ((1 + rho) / (1 - rho))^2 for unit variance, hence:
    count = 4000
    expected = (6 * rho**2 / (1 - rho**2) ** 2) ** (1 / 3) * count ** (1 / 3)
    found = np.median([bootstrap.block_length(correlated(seed, count, rho)) for seed in range(30)])
    assert found == pytest.approx(expected, rel=0.25)


def test_independent_samples_are_drawn_one_by_one() -> None:
    lengths = [bootstrap.block_length(np.random.default_rng(seed).normal(size=500)) for seed in range(30)]
    assert np.median(lengths) <= 2
    assert bootstrap.block_length(np.ones(100)) == 1
    assert bootstrap.block_length(np.arange(3)) == 1


def test_of_correlated_samples_the_interval_has_the_truth_about_as_often_as_it_says() -> None:
    found = [bootstrap.estimate(correlated(seed, 600, 0.7), 50) for seed in range(100)]
    covered = np.mean([one.low <= 0 <= one.high for one in found])  # the true median is 0
    assert 0.86 <= covered <= 0.99
    naive = [scipy.stats.binom.ppf(q, 600, 0.5).astype(int) for q in (0.025, 0.975)]
    ranked = [np.sort(correlated(seed, 600, 0.7)) for seed in range(150)]
    assert np.mean([one[naive[0]] <= 0 <= one[naive[1]] for one in ranked]) < 0.75  # what independence would give


def test_a_ratio_of_what_was_measured_in_turn_is_sharper() -> None:
    common = 1 + 0.1 * np.abs(correlated(1, 800, 0.9))
    own = np.random.default_rng(2).normal(1, 0.002, size=(2, 800))
    before, after = common * own[0], 1.05 * common * own[1]
    apart, paired = bootstrap.ratio(before, after), bootstrap.ratio(before, after, paired=True)
    assert apart.low <= 1.05 <= apart.high
    assert paired.high - paired.low < (apart.high - apart.low) / 3
    assert 1.04 < paired.low <= paired.high < 1.06


def test_the_same_samples_give_the_same_interval() -> None:
    samples = correlated(3, 300, 0.5) + 10
    assert bootstrap.estimate(samples, 90) == bootstrap.estimate(samples, 90)
    assert bootstrap.ratio(samples, samples, paired=True) == bootstrap.Interval(1.0, 1.0, 1.0)


def test_a_single_sample_is_its_own_interval() -> None:
    assert bootstrap.estimate(np.array([3.0]), 50) == bootstrap.Interval(3.0, 3.0, 3.0)


def test_a_long_series_is_resampled_less_often_and_still_at_all() -> None:
    samples = np.random.default_rng(0).normal(10, 1, 60_000)
    found = bootstrap.estimate(samples, 50)
    assert found.low < found.value < found.high
