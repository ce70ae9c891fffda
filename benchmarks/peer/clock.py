"""Peers timed in turn, each in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

from peer import PeerError

__all__ = ["Asked", "timed"]

_SLOW = 2.0
"""Whoever takes so many times the fastest is asked no more once it has had its share of the time, and once at least."""

_BRIEF_NS = 200e6
"""A longer request fills the caches itself; one that is not timed goes before a shorter."""


class Asked(Protocol):
    """A worker."""

    def ask(self, **message: Any) -> dict[str, Any]:
        """Its answer; raises PeerError."""


def timed(
    workers: Mapping[str, Asked], requests: range, *, seconds: float, least: int
) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Time requests of everyone, one of each a round, so that what disturbs the machine disturbs all alike.

    While one is asked, the others wait on their input and use no processor, as long as each has one thread.

    Args:
        workers: whom to ask, by name.
        requests: their numbers, which take turns by round; everyone is asked the same.
        seconds: for all of them together; it takes longer if that does not suffice for ``least`` rounds.
        least: rounds at least.

    Returns:
        By name, the nanoseconds of each request; and, of those that failed, what they said.
    """
    begin, errors, samples = time.monotonic(), dict[str, str](), dict[str, list[int]]()

    def ask(name: str, index: int, before: int = 0) -> int | None:
        try:
            return int(workers[name].ask(time=requests[index % len(requests)], before=before)["ns"])
        except PeerError as exc:
            errors[name] = str(exc)
            samples.pop(name, None)
            return None

    # the first request of a shape allocates, or compiles, and says nothing yet of who is slow; the second does
    first = {name: ns for name in workers if (ns := ask(name, 0)) is not None}
    limit = _SLOW * min(first.values(), default=0)
    trial = {name: again for name, ns in first.items() if (again := ask(name, 0) if ns > limit else ns) is not None}
    samples |= {name: [ns] if ns > limit else [] for name, ns in trial.items()}
    count = 0
    while samples and (count < least or time.monotonic() - begin < seconds):
        for name in list(samples):
            if trial[name] > limit and sum(samples[name]) > 1e9 * seconds / len(workers):
                continue  # it has had its share
            found = ask(name, count, before=int(trial[name] < _BRIEF_NS))
            if found is not None:
                samples[name].append(found)
        count += 1
    return samples, errors
