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
    ours = bootstrap.by_blocks(samples, percent)
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


@pytest.mark.parametrize("percent", [50, 90, None])
def test_the_interval_of_the_parts_is_that_of_student(percent: float | None) -> None:
    samples = correlated(5, 600, 0.9) + 10
    parts = [
        part.mean() if percent is None else np.percentile(part, percent, method="inverted_cdf")
        for part in np.split(samples, 6)
    ]
    low, high = scipy.stats.t.interval(0.95, 5, loc=0, scale=scipy.stats.sem(parts))
    found = bootstrap.by_parts(samples, percent)
    assert found is not None
    assert (found.low - found.value, found.high - found.value) == pytest.approx((low, high))
    assert bootstrap.by_parts(samples[:59], 50) is None
    assert bootstrap.by_parts(samples, 99) is None  # a part has one sample beyond it


def test_no_interval_leaves_what_was_measured() -> None:
    steps = np.repeat([1.0, 9.0, 1.0, 9.0, 9.0, 1.0], 20) + np.random.default_rng(0).random(120) / 100
    found = bootstrap.estimate(steps, 50)
    parts = [np.median(part) for part in np.split(steps, 6)]
    assert found.value - 2.57 * scipy.stats.sem(parts) < 0 < steps.min() == found.low
    assert found.high <= steps.max()


def drifting(seed: int, count: int) -> Series:
    """A machine that is in one of two states, each for a while: what a neighbour does. The true median is 0."""
    random = np.random.default_rng(seed)
    changes = random.random(count) < 0.02
    state = (np.cumsum(changes) + random.integers(2)) % 2
    return np.asarray(random.normal(size=count) + 2 * (state - 0.5))


def shares(series: list[Series]) -> tuple[float, float]:
    """How often the truth, 0, is inside the interval: of the blocks alone, and of both."""
    found = [(bootstrap.by_blocks(one, 50), bootstrap.estimate(one, 50)) for one in series]
    blocks, both = (np.mean([pair[at].low <= 0 <= pair[at].high for pair in found]) for at in (0, 1))
    return float(blocks), float(both)


@pytest.mark.parametrize(("rho", "count", "covered"), [(0.9, 100, 0.87), (0.9, 300, 0.92), (0.97, 1000, 0.92)])
def test_what_changes_slowly_makes_the_interval_wider_than_blocks_see(rho: float, count: int, covered: float) -> None:
    blocks, both = shares([correlated(seed, count, rho) for seed in range(120)])
    assert blocks < 0.87  # where 0.95 is said
    assert both >= covered


def test_a_machine_of_two_states_is_seen_as_such_more_often() -> None:
    blocks, both = shares([drifting(seed, 1000) for seed in range(120)])
    assert blocks < 0.87 <= both
    short = shares([drifting(seed, 100) for seed in range(120)])  # of a run in which it changes twice, nobody knows
    assert short[0] < 0.5
    assert short[1] > short[0] + 0.1


def test_of_independent_samples_the_interval_is_not_much_wider_for_it() -> None:
    found = [
        (bootstrap.by_blocks(one, 50), bootstrap.estimate(one, 50))
        for one in (correlated(s, 400, 0) for s in range(60))
    ]
    assert np.mean([(both.high - both.low) / (one.high - one.low) for one, both in found]) < 1.45


def test_a_ratio_is_as_sure_as_its_two_sides() -> None:
    found = [
        bootstrap.ratio(10 + correlated(seed, 300, 0.9), 10 + correlated(1000 + seed, 300, 0.9)) for seed in range(120)
    ]
    assert np.mean([one.low <= 1 <= one.high for one in found]) >= 0.92
    assert np.mean([one.low <= 1.25 <= one.high for one in found]) <= 0.2  # and a fourth more is not hidden by it


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
