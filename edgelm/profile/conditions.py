"""The conditions of a profile in words: what the machine was like before the first sample and after the last."""

from __future__ import annotations

from collections.abc import Callable

from edgelm.profile.table import size
from edgelm.runs import Conditions, Profile

__all__ = ["conditions"]

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
    return tuple((name, _both(before, after)) for name, before, after in told if before or after)


def _both(before: str | None, after: str | None) -> str:
    if before == after:
        return before or ""
    return f"{before or 'not told'} before, {after or 'not told'} after"
