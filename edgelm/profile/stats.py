"""Statistics of a run. Derived from its samples each time, never stored instead of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelm.manifest import Run

__all__ = ["Summary", "percentile_ms", "row", "summarize", "unstable"]

_MS = 1e6
_BLOCK, _BLOCKS = 100, 20  # resamples: 2000 of them, in blocks that stay small in memory
_SEED = 0
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
    low, high = _median_interval(samples)
    return Summary(
        n=samples.size,
        p50=percentile_ms(run.samples_ns, 50),
        p90=percentile_ms(run.samples_ns, 90),
        p99=percentile_ms(run.samples_ns, 99),
        low=low,
        high=high,
        mean=float(samples.mean()),
        stdev=_stdev(samples),
        mad=float(np.median(np.abs(samples - np.median(samples)))),
    )


def unstable(run: Run) -> bool:
    """Whether the samples scatter too much to be trusted: a standard deviation of 10 % of the mean, or more.

    The rule is pyperf's; see https://pyperf.readthedocs.io/en/latest/analyze.html.
    """
    samples = _array(run.samples_ns) / _MS
    return _stdev(samples) >= _UNSTABLE * float(samples.mean())


def row(run: Run) -> dict[str, Any]:
    """A run as the command line's JSON has it: conditions, percentiles in milliseconds, number of samples, memory."""
    return {
        "engine": run.engine,
        "precision": run.precision,
        "tokens": run.tokens,
        "batch": run.batch,
        "threads": run.threads,
        "p50_ms": percentile_ms(run.samples_ns, 50),
        "p90_ms": percentile_ms(run.samples_ns, 90),
        "p99_ms": percentile_ms(run.samples_ns, 99),
        "n": len(run.samples_ns),
        "peak_rss_bytes": run.peak_rss_bytes,
    }


def _array(samples_ns: Sequence[int]) -> NDArray[np.float64]:
    """Samples as float64, shape (n,), in nanoseconds."""
    return np.asarray(samples_ns, dtype=np.float64)


def _stdev(samples: NDArray[np.float64]) -> float:
    """Sample standard deviation."""
    return float(samples.std(ddof=1)) if samples.size > 1 else 0.0


def _median_interval(samples: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the median by the percentile bootstrap [Efron 1979], the same each time."""
    random = np.random.default_rng(_SEED)
    medians = [np.median(random.choice(samples, size=(_BLOCK, samples.size)), axis=1) for _ in range(_BLOCKS)]
    low, high = np.percentile(np.concatenate(medians), (2.5, 97.5))
    return float(low), float(high)
