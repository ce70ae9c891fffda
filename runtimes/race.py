"""Which of several requests is the fastest: told within about a second, on a machine that does other things too.

All take turns, in blocks of a few calls, so that what disturbs one disturbs all. The slow ones are dropped early, and
the time is spent on those that are close. What else runs on the machine only ever adds time, so a contender stands for
its fastest call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

__all__ = ["race", "trial"]

_BLOCK = 3
_ROUNDS = 3
_DROP = (3.0, 2.0, 2.0, 1.5, 1.3)
"""After each round, whoever's fastest call took this many times the fastest of all; the last one holds from then on."""


def race(
    requests: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    rest_s: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, float]:
    """Time requests against each other.

    Args:
        requests: what to call, by name; each was called before.
        seconds: for all of them together; it takes longer only if that does not suffice for three rounds.
        rest_s: to sleep before a block, which then begins with a call that is not counted. An engine's idle threads
            spin for some milliseconds, on the cores that the next one needs.
        clock: seconds from any origin.
        sleep: waits so many seconds.

    Returns:
        By name, the seconds that a contender's fastest call took.
    """
    begin, turn = clock(), 0
    fastest: dict[str, float] = {}
    left = list(requests)
    while turn < _ROUNDS or clock() - begin < seconds:
        for name in left:
            if rest_s:
                sleep(rest_s)
                requests[name]()
            times = [_timed(requests[name], clock) for _ in range(_BLOCK)]
            fastest[name] = min(fastest.get(name, times[0]), *times)
        limit = min(fastest.values()) * _DROP[min(turn, len(_DROP) - 1)]
        left = [name for name in left if fastest[name] <= limit]
        turn += 1
        if len(left) <= 1:
            break
    return fastest


def trial(request: Callable[[], object], *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest of three calls, after one that is not counted: enough to see who has no chance."""
    request()
    return min(_timed(request, clock) for _ in range(_BLOCK))


def _timed(request: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    request()
    return clock() - start
