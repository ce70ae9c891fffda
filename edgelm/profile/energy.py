"""Energy of a request: what the machine used while a variant ran without a pause, beside what it uses at rest."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgelm.devices.power import Meter
from edgelm.runs import Energy

__all__ = ["measured"]

_LOOK_S = 0.1
_SECONDS = 3.0


def measured(
    request: Callable[[], object],
    meter: Meter,
    *,
    seconds: float = _SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy:
    """Rest for a while, then call a request again and again for as long.

    Args:
        request: what to call.
        meter: what the machine tells its energy by.
        seconds: of each of the two.
        clock: seconds from any origin.
        sleep: waits for so many seconds.
    """
    idle, _ = _watched(lambda: sleep(_LOOK_S / 10), meter, seconds, clock)
    busy, count = _watched(request, meter, seconds, clock)
    return Energy(joules=busy * seconds / max(count, 1), watts=busy, idle_watts=idle, source=meter.source)


def _watched(
    call: Callable[[], object], meter: Meter, seconds: float, clock: Callable[[], float]
) -> tuple[float, float]:
    """Mean power while something is called again and again, and calls in ``seconds``."""
    begin = looked = clock()
    start, total, count = meter.joules() if meter.counts else 0.0, 0.0, 0
    while (now := clock()) - begin < seconds:
        if not meter.counts and now - looked >= _LOOK_S:
            total += meter.watts() * (now - looked)
            looked = now
        call()
        count += 1
    elapsed = clock() - begin
    if meter.counts:
        return (meter.joules() - start) / elapsed, count * seconds / elapsed
    seen = looked - begin
    return total / seen if seen else meter.watts(), count * seconds / elapsed
