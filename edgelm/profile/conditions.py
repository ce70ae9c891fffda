"""The conditions of a profile in words: what the machine was like before and after, what measuring itself took."""

from __future__ import annotations

from collections.abc import Callable

from edgelm.profile import stats
from edgelm.profile.table import size
from edgelm.runs import Conditions, Profile

__all__ = ["conditions", "harness"]

_FACTS: tuple[tuple[str, Callable[[Conditions], str | None]], ...] = (
    ("Load average", lambda one: None if one.load is None else f"{one.load:.2f}"),
    ("Clock", lambda one: None if one.mhz is None else f"{one.mhz:.0f} MHz"),
    ("Governor", lambda one: ", ".join(one.governors) or None),
    ("Temperature", lambda one: None if one.celsius is None else f"{one.celsius:.0f} °C"),
    ("Throttled", lambda one: None if one.throttled is None else f"{one.throttled} times since it was started"),
    ("Quota", lambda one: None if one.quota is None else f"{one.quota:g} cores"),
    ("Memory available", lambda one: None if one.memory_bytes is None else size(one.memory_bytes)),
    ("Power", lambda one: one.power),
    ("Time", lambda one: one.at),
)


def conditions(profile: Profile) -> tuple[tuple[str, str], ...]:
    """Names and values of what the machine told, each before and after unless it stayed the same."""
    if not profile.runs:
        return ()
    first, last = profile.runs[0].before, profile.runs[-1].after
    told = ((name, value(first), value(last)) for name, value in _FACTS)
    found = [(name, _both(before, after)) for name, before, after in told if before or after]
    words = harness(profile)
    return (*found, *([("Harness", words)] if words else []))


def harness(profile: Profile) -> str:
    """What of every latency is the measurement itself, in words; nothing where it was not measured."""
    known = [run for run in profile.runs if run.harness_ns is not None]
    if not known:
        return ""
    most = max(known, key=lambda run: run.harness_ns or 0)
    shares = [100 * (run.harness_ns or 0) / stats.percentile_ms(run.samples_ns, 50) / 1e6 for run in known]
    return (
        f"{(most.harness_ns or 0) / 1e3:.3g} µs of each latency at most, {max(shares):.2g} % of the shortest median: "
        "what an engine takes here that answers at once. It is subtracted nowhere."
    )


def _both(before: str | None, after: str | None) -> str:
    if before == after:
        return before or ""
    return f"{before or 'not told'} before, {after or 'not told'} after"
