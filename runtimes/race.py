"""Which of several requests is the fastest: told within about a second, on a machine that does other things too.

All take turns, in blocks of a few calls, so that what disturbs one disturbs all. The slow ones are dropped early, and
the time is spent on those that are close. What else runs on the machine only ever adds time, so a contender stands for
its fastest call. Where every core is busy, every call is interrupted, however many there are; what its threads ran is
nearly what they run on an idle machine, and stands for it there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Usage", "race", "trial"]

Usage = Callable[[], tuple[float, int]]
"""Of this process until now: seconds that its threads ran, divided by their number, and how often one had to stop."""

_BLOCK = 3
_ROUNDS = 3
_DROP = (3.0, 2.0, 2.0, 1.5, 1.3)
"""After each round, whoever's fastest call took this many times the fastest of all; the last one holds from then on."""


def race(
    requests: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    rest_s: float = 0.0,
    usage: Usage | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, float]:
    """Time requests against each other.

    Args:
        requests: what to call, by name; each was called before.
        seconds: for all of them together; it takes longer only if that does not suffice for three rounds.
        rest_s: to sleep before a block, which then begins with a call that is not counted. An engine's idle threads
            spin for some milliseconds, on the cores that the next one needs.
        usage: None where it is not the processor that computes, or nobody counts.
        clock: seconds from any origin.
        sleep: waits so many seconds.

    Returns:
        By name, the seconds that a contender's fastest call took; or, if most calls of the one that needs the least
        processor time were interrupted, the least seconds that its threads ran.
    """
    used = usage or (lambda: (clock(), 0))
    begin, turn = clock(), 0
    seen = {name: _Seen() for name in requests}
    left = list(requests)
    while turn < _ROUNDS or clock() - begin < seconds:
        for name in left:
            if rest_s:
                sleep(rest_s)
                requests[name]()
            for _ in range(_BLOCK):
                seen[name].add(requests[name], used, clock)
        factor = _DROP[min(turn, len(_DROP) - 1)]
        took, ran = (factor * min(times) for times in zip(*((one.took, one.ran) for one in seen.values()), strict=True))
        left = [name for name in left if seen[name].took <= took or seen[name].ran <= ran]
        turn += 1
        if len(left) <= 1:
            break
    least = min(seen.values(), key=lambda one: one.ran)
    return {name: one.ran if least.disturbed else one.took for name, one in seen.items()}


@dataclass
class _Seen:
    """What is known of a contender: its fastest call, the least that its threads ran, how many calls had to stop."""

    took: float = math.inf
    ran: float = math.inf
    calls: int = 0
    interrupted: int = 0

    @property
    def disturbed(self) -> bool:
        return self.ran > 0 and 2 * self.interrupted > self.calls  # emulators show no processor time

    def add(self, request: Callable[[], object], usage: Usage, clock: Callable[[], float]) -> None:
        ran, stopped = usage()
        took = _timed(request, clock)
        ran_after, stopped_after = usage()
        self.took, self.ran = min(self.took, took), min(self.ran, ran_after - ran)
        self.calls, self.interrupted = self.calls + 1, self.interrupted + (stopped_after > stopped)


def trial(request: Callable[[], object], *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest of three calls, after one that is not counted: enough to see who has no chance."""
    request()
    return min(_timed(request, clock) for _ in range(_BLOCK))


def _timed(request: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    request()
    return clock() - start
