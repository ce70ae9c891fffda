from __future__ import annotations

import numpy as np
import pytest
import sample
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from edgelm.profile import stats
from edgelm.runs import Run

MS = 1_000_000
samples = st.lists(st.integers(1, 10**10), min_size=1, max_size=200)


def run_of(times: list[int]) -> Run:
    return sample.run("litert", "fp32", 16, tuple(times), 5)


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 15.0), (5, 15.0), (30, 20.0), (40, 20.0), (50, 35.0), (90, 50.0), (100, 50.0)]
)
def test_percentiles_are_by_nearest_rank(percent: float, expected: float) -> None:
    times = [40 * MS, 15 * MS, 50 * MS, 35 * MS, 20 * MS]  # the example of Wikipedia's article on percentiles
    assert stats.percentile_ms(times, percent) == expected


@given(times=samples, percent=st.floats(0.01, 100))
def test_a_percentile_is_a_sample_that_enough_others_do_not_exceed(times: list[int], percent: float) -> None:
    found = stats.percentile_ms(times, percent) * MS
    value = min(times, key=lambda time: abs(time - found))
    assert value == pytest.approx(found, rel=1e-12)
    assert sum(time <= value for time in times) / len(times) >= percent / 100 - 1e-9


def test_the_summary_agrees_with_numpy() -> None:
    times = np.random.default_rng(1).gamma(3.0, 2.0 * MS, 501).astype(int)
    found = stats.summarize(run_of(times.tolist()))
    ms = times / MS
    assert found.n == 501
    assert found.mean == pytest.approx(ms.mean())
    assert found.stdev == pytest.approx(ms.std(ddof=1))
    assert found.mad == pytest.approx(scipy.stats.median_abs_deviation(ms))
    assert found.p50 == pytest.approx(np.median(ms))
    assert found.p90 == pytest.approx(np.sort(ms)[450])
    assert found.p99 == pytest.approx(np.sort(ms)[495])


def test_the_median_absolute_deviation_is_that_of_the_textbook() -> None:
    assert stats.summarize(run_of([1 * MS, 1 * MS, 2 * MS, 2 * MS, 4 * MS, 6 * MS, 9 * MS])).mad == 1.0


def test_the_interval_of_the_median_is_close_to_that_of_the_binomial_distribution() -> None:
    times = np.random.default_rng(2).gamma(3.0, 2.0 * MS, 301).astype(int)
    found, ranked = stats.summarize(run_of(times.tolist())), np.sort(times) / MS
    half = 1.96 * np.sqrt(301) / 2  # ranks between which the median lies with 95 %
    assert ranked[150 - round(half) - 4] <= found.low <= ranked[150 - round(half) + 4]
    assert ranked[150 + round(half) - 4] <= found.high <= ranked[150 + round(half) + 4]
    assert found == stats.summarize(run_of(times.tolist()))


def test_a_single_sample_has_no_scatter() -> None:
    found = stats.summarize(run_of([3 * MS]))
    assert (found.p50, found.p99, found.low, found.high, found.stdev, found.mad) == (3, 3, 3, 3, 0, 0)
    assert not stats.unstable(run_of([3 * MS]))


@pytest.mark.parametrize(("spread", "expected"), [(0.098, False), (0.102, True)])
def test_scatter_of_a_tenth_of_the_mean_is_unstable(spread: float, expected: bool) -> None:
    times = np.array([1 - spread, 1 + spread] * 500) * 100 * MS  # its standard deviation is the spread
    assert stats.unstable(run_of(times.astype(int).tolist())) is expected


def test_a_row_has_the_keys_of_the_command_line() -> None:
    times = [index * MS for index in range(1, 101)]
    assert stats.row(run_of(times)) == {
        "scenario": "quick",
        "engine": "litert",
        "precision": "fp32",
        "tokens": 16,
        "batch": 1,
        "threads": 2,
        "p50_ms": 50.0,
        "p90_ms": 90.0,
        "p99_ms": 99.0,
        "mean_ms": 50.5,
        "stdev_ms": pytest.approx(np.std(range(1, 101), ddof=1)),
        "mad_ms": 25.0,
        "n": 100,
        "harness_ns": None,
        "peak_rss_bytes": 5,
    }
