"""Timing calls: every one in turn, until there are enough samples over a long enough time."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["interleaved"]

_Key = TypeVar("_Key", bound=Hashable)


def interleaved(
    requests: Mapping[_Key, Callable[[], object]],
    *,
    warmup: int,
    seconds: float,
    min_count: int,
    rest_s: float = 0.0,
    progress: Callable[[float], None] | None = None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[_Key, tuple[int, ...]]:
    """Time requests in turn, one of each a round, so that what disturbs the machine disturbs all alike.

    It goes on until both the time and the count are reached, as MLPerf's load generator does.

    Args:
        requests: what to call, by name.
        warmup: rounds that are run first and not counted.
        seconds: measure for at least this long, all requests together.
        min_count: and take at least this many samples of each.
        rest_s: before each sample, sleep so long and run the request once uncounted. An engine's idle threads spin for
            some milliseconds, on the cores that the next one needs: without a rest, of two engines with two threads
            each on two cores, one is measured at several times its latency.
        progress: told after each round which share of the way is done, from 0 to 1.
        clock: nanoseconds from any origin.

    Returns:
        The latency of each call in nanoseconds, by name: as many of each.
    """
    for _ in range(warmup):
        for request in requests.values():
            request()
    samples: dict[_Key, list[int]] = {key: [] for key in requests}
    with _garbage_frozen():
        begin, count, elapsed = clock(), 0, 0.0
        while requests and (count < min_count or elapsed < seconds):
            for key, request in requests.items():
                if rest_s:
                    time.sleep(rest_s)
                    request()
                start = clock()
                request()
                samples[key].append(clock() - start)
            count, elapsed = count + 1, (clock() - begin) / 1e9
            if progress:
                progress(min(1.0, count / max(min_count, 1), elapsed / seconds if seconds > 0 else 1.0))
    return {key: tuple(values) for key, values in samples.items()}


@contextmanager
def _garbage_frozen() -> Iterator[None]:
    """Keep the collector from running between two readings of the clock."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()
