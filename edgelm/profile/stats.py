"""Statistics of a run. Derived from its samples each time, never stored instead of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelm.profile import bootstrap
from edgelm.profile.bootstrap import Interval
from edgelm.runs import Run

__all__ = [
    "PERCENTILES",
    "Summary",
    "apart",
    "inside_noise",
    "intervals",
    "percentile_ms",
    "row",
    "summarize",
    "unstable",
]

PERCENTILES = (50, 90, 99)
"""Those that are told: the median, what MLPerf's SingleStream asks for, and the tail."""

_MS = 1e6
_UNSTABLE = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Statistics of one run; times in milliseconds.

    Attributes:
        n: samples.
        p50: median.
        p90: 90th percentile, what MLPerf's SingleStream scenario reports.
        p99: 99th percentile.
        low: lower end of the 95 % interval of the median.
        high: and its upper end.
        mean: arithmetic mean.
        stdev: sample standard deviation; 0 for a single sample.
        mad: median absolute deviation from the median, not scaled.
    """

    n: int
    p50: float
    p90: float
    p99: float
    low: float
    high: float
    mean: float
    stdev: float
    mad: float


def percentile_ms(samples_ns: Sequence[int], percent: float) -> float:
    """A percentile by nearest rank: the smallest sample that at least so many per cent of them do not exceed.

    It is always a latency that was measured, never one between two.

    Args:
        samples_ns: at least one, in nanoseconds.
        percent: between 0 and 100.

    Returns:
        Milliseconds.
    """
    return float(np.percentile(_array(samples_ns), percent, method="inverted_cdf")) / _MS


def summarize(run: Run) -> Summary:
    """Every statistic of a run that has at least one sample."""
    samples = _array(run.samples_ns) / _MS
    median = bootstrap.estimate(samples, 50)
    return Summary(
        n=samples.size,
        p50=percentile_ms(run.samples_ns, 50),
        p90=percentile_ms(run.samples_ns, 90),
        p99=percentile_ms(run.samples_ns, 99),
        low=median.low,
        high=median.high,
        mean=float(samples.mean()),
        stdev=_stdev(samples),
        mad=_mad(samples),
    )


def unstable(run: Run) -> bool:
    """Whether the samples scatter too much to be trusted: a standard deviation of 10 % of the mean, or more.

    The rule is pyperf's; see https://pyperf.readthedocs.io/en/latest/analyze.html.
    """
    samples = _array(run.samples_ns) / _MS
    return _stdev(samples) >= _UNSTABLE * float(samples.mean())


def intervals(run: Run) -> dict[str, Interval]:
    """Percentiles and the mean in milliseconds, each with its 95 % interval, by the names of the command line."""
    samples = _array(run.samples_ns) / _MS
    asked: dict[str, float | None] = {f"p{percent}": percent for percent in PERCENTILES}
    return {name: bootstrap.estimate(samples, percent) for name, percent in (asked | {"mean": None}).items()}


def apart(first: Run, second: Run) -> Interval:
    """How many times slower the median of the second run is than that of the first.

    Runs of one round-robin have as many samples each, taken in turn: what disturbed both cancels out.
    """
    one, two = _array(first.samples_ns), _array(second.samples_ns)
    paired = first.scenario == second.scenario == "quick" and one.size == two.size
    return bootstrap.ratio(one, two, paired=paired)


def inside_noise(factor: Interval) -> bool:
    """Whether a factor may as well be 1."""
    return factor.low <= 1 <= factor.high


def row(run: Run) -> dict[str, Any]:
    """A run as the command line's JSON has it: what was run, statistics in milliseconds, memory."""
    samples = _array(run.samples_ns) / _MS
    return {
        "scenario": run.scenario,
        "engine": run.engine,
        "precision": run.precision,
        "tokens": run.tokens,
        "batch": run.batch,
        "threads": run.threads,
        "p50_ms": percentile_ms(run.samples_ns, 50),
        "p90_ms": percentile_ms(run.samples_ns, 90),
        "p99_ms": percentile_ms(run.samples_ns, 99),
        "mean_ms": float(samples.mean()),
        "stdev_ms": _stdev(samples),
        "mad_ms": _mad(samples),
        "n": len(run.samples_ns),
        "harness_ns": run.harness_ns,
        "peak_rss_bytes": run.peak_rss_bytes,
    }


def _array(samples_ns: Sequence[int]) -> NDArray[np.float64]:
    """Samples as float64, shape (n,), in nanoseconds."""
    return np.asarray(samples_ns, dtype=np.float64)


def _mad(samples: NDArray[np.float64]) -> float:
    """Median absolute deviation from the median."""
    return float(np.median(np.abs(samples - np.median(samples))))


def _stdev(samples: NDArray[np.float64]) -> float:
    """Sample standard deviation."""
    return float(samples.std(ddof=1)) if samples.size > 1 else 0.0
