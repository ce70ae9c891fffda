"""Intervals of percentiles and of their ratios, by resampling blocks.

One latency is like the one before it: the clock, the caches and the neighbours change more slowly than requests come.
Resampling single samples would take them for independent and give intervals that are far too narrow, so whole blocks
are drawn, wrapped around at the end [Politis & Romano 1992]. Seeds are fixed: the same samples give the same interval.

What changes more slowly than a block is long, a neighbour that works for a while or a clock that sinks, no resampling
of blocks sees. It moves whole parts of a run against each other, so a run is also cut into a few parts, and the wider
of two intervals is told: that of the blocks, and Student's of the parts' own statistics [batch means, Conway 1963].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "Samples", "block_length", "by_blocks", "by_parts", "estimate", "point", "ratio"]

_SEED = 0
_RESAMPLES, _FEWEST = 1000, 400
_BUDGET = 20_000_000  # samples drawn for an interval: of a long run there are fewer resamples
_CHUNK = 1_000_000  # samples in memory at once
_TAILS = (2.5, 97.5)  # a 95 % interval
_PARTS, _STUDENT = 6, 2.570582  # of a run, and the 97.5 % quantile of Student's t with one degree of freedom less
_BEYOND = 5  # samples of a part beyond its percentile: of fewer, the part's own percentile says nothing

Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval.

    Attributes:
        value: of the samples themselves.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float


def estimate(samples: Samples, percent: float | None) -> Interval:
    """A percentile by nearest rank, or the mean.

    Args:
        samples: shape (n,), at least one, in the order in which they were measured.
        percent: between 0 and 100; None is the mean.
    """
    return _wider(by_blocks(samples, percent), by_parts(samples, percent))


def by_blocks(samples: Samples, percent: float | None) -> Interval:
    """The same by resampling blocks alone."""
    found = _resampled(samples, percent, _own_length(samples, percent), _SEED)
    return _interval(float(_of(samples, percent)), found)


def by_parts(samples: Samples, percent: float | None) -> Interval | None:
    """The same by how far parts of the run are from each other alone, within what was ever measured.

    None of a run that is too short for that.
    """
    parts, value = _parts(samples, percent), float(_of(samples, percent))
    if parts is None:
        return None
    half = _STUDENT * float(parts.std(ddof=1)) / np.sqrt(_PARTS)
    return Interval(value, max(value - half, float(samples.min())), min(value + half, float(samples.max())))


def point(samples: Samples, percent: float | None) -> float:
    """The same without an interval."""
    return float(_of(samples, percent))


def ratio(before: Samples, after: Samples, percent: float | None = 50, *, paired: bool = False) -> Interval:
    """How many times larger a percentile of ``after`` is than that of ``before``.

    Args:
        before: shape (n,), in the order in which they were measured.
        after: shape (m,).
        percent: which percentile; None is the mean.
        paired: they were measured in turn, so that what disturbed one disturbed the other: the same blocks are drawn
            from both, and what they have in common cancels out. Needs n = m.
    """
    lengths = [_own_length(samples, percent) for samples in (before, after)]
    if paired:
        lengths = [max(lengths)] * 2
    below = _resampled(before, percent, lengths[0], _SEED)
    above = _resampled(after, percent, lengths[1], _SEED if paired else _SEED + 1)
    count = min(below.size, above.size)
    value = float(_of(after, percent) / _of(before, percent))
    found = _interval(value, above[:count] / below[:count])
    one, two = _parts(before, percent), _parts(after, percent)
    if one is None or two is None:
        return found
    logs = np.log(one), np.log(two)
    spread = (logs[1] - logs[0]).std(ddof=1) if paired else np.hypot(*(log.std(ddof=1) for log in logs))
    half = np.exp(_STUDENT * spread / np.sqrt(_PARTS))
    return _wider(found, Interval(value, float(value / half), float(value * half)))


def block_length(series: NDArray[np.generic]) -> int:
    """How many neighbours belong together, from the correlation of the series with itself.

    The rule is that of Politis & White 2004 (Econometric Reviews 23) for the circular bootstrap, with the correction of
    Patton, Politis & White 2009: (2 G² / D)^(1/3) n^(1/3).

    Args:
        series: shape (n,).

    Returns:
        1 when neighbours have nothing to do with each other; at most 3 √n and n / 3.
    """
    x = np.asarray(series, np.float64)
    n = x.size
    x = x - x.mean()
    if n < 9 or not x.any():
        return 1
    run = max(5, int(np.sqrt(np.log10(n))))
    most = min(int(np.ceil(np.sqrt(n))) + run, n - 1)
    covariance = np.array([x[: n - lag] @ x[lag:] for lag in range(most + 1)]) / n
    small = np.abs(covariance[1:] / covariance[0]) < 2 * np.sqrt(np.log10(n) / n)
    quiet = next((lag for lag in range(most - run + 1) if small[lag : lag + run].all()), most)
    lags = np.arange(1, min(max(2 * quiet, 1), most) + 1)
    window = np.clip(2 * (1 - lags / lags[-1]), 0, 1)  # flat up to half, then down to nothing
    spectrum = covariance[0] + 2 * (window * covariance[lags]).sum()
    slope = 2 * (window * lags * covariance[lags]).sum()
    if spectrum <= 0 or quiet == 0:
        return 1
    length = (2 * slope**2 / (4 / 3 * spectrum**2)) ** (1 / 3) * n ** (1 / 3)
    return int(np.clip(np.ceil(length), 1, np.ceil(min(3 * np.sqrt(n), n / 3))))


def _own_length(samples: Samples, percent: float | None) -> int:
    """The block length for a statistic: of a percentile, that of the samples being above it or not."""
    return block_length(samples if percent is None else samples > _of(samples, percent))


def _of(samples: Samples, percent: float | None) -> Samples:
    """The mean, or the percentile by nearest rank, along the last axis."""
    if percent is None:
        return np.asarray(samples.mean(axis=-1))
    rank = max(0, int(np.ceil(samples.shape[-1] * percent / 100 - 1e-9)) - 1)
    return np.asarray(np.partition(samples, rank, axis=-1)[..., rank])


def _resampled(samples: Samples, percent: float | None, length: int, seed: int) -> Samples:
    """The statistic of each resample, shape (resamples,)."""
    random = np.random.default_rng(seed)
    return np.concatenate([_of(samples[rows], percent) for rows in _rows(random, samples.size, length)])


def _rows(random: np.random.Generator, n: int, length: int) -> Iterator[NDArray[np.int64]]:
    """Indices of the resamples, a few of them at a time: shape (resamples, n)."""
    blocks, left = -(-n // length), max(_FEWEST, min(_RESAMPLES, _BUDGET // n))
    while left > 0:
        count = min(left, max(1, _CHUNK // n))
        starts = random.integers(0, n, size=(count, blocks, 1))
        yield ((starts + np.arange(length)) % n).reshape(count, -1)[:, :n]
        left -= count


def _parts(samples: Samples, percent: float | None) -> Samples | None:
    """The statistic of each part of a run, shape (parts,); None if they are too short."""
    share = 0.5 if percent is None else min(percent, 100 - percent) / 100
    if samples.size // _PARTS * share < _BEYOND:
        return None
    return np.array([_of(part, percent) for part in np.array_split(samples, _PARTS)])


def _wider(one: Interval, other: Interval | None) -> Interval:
    """Of one value, what either interval holds."""
    return one if other is None else Interval(one.value, min(one.low, other.low), max(one.high, other.high))


def _interval(value: float, found: Samples) -> Interval:
    low, high = np.percentile(found, _TAILS)
    return Interval(value, float(low), float(high))
