"""Two profiles against each other: what changed, how sure that is, and whether it is more than is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgelm.devices.machine import fingerprint
from edgelm.errors import DataError
from edgelm.profile import bootstrap
from edgelm.profile.bootstrap import Interval
from edgelm.profile.doubts import causes, disturbances
from edgelm.runs import Profile, Run

__all__ = ["BUSY", "METRICS", "NOISE", "Change", "Comparison", "Limit", "broken", "compare", "limit", "told"]

METRICS = ("p50", "p90", "p99", "mean", "peak_rss")
"""What can be compared, by the names of ``--fail-if``."""

NOISE = 0.02
"""Changes up to this are never told from noise: two processes that run the same thing differ by so much, each of them
steadily, for where their memory happens to lie [Mytkowicz et al. 2009], and no interval within one process sees it."""

BUSY = 0.1
"""The same where something interfered with one of the two: what a neighbour took is in its samples, and cannot be told
from what was changed (``make bench-noise``)."""

_PERCENTS: dict[str, float | None] = {"p50": 50, "p90": 90, "p99": 99, "mean": None}
_LIMIT = re.compile(r"\s*(?P<metric>\w+)\s*>\s*\+?(?P<percent>\d+(?:\.\d+)?)\s*%\s*")
_MUST_MATCH = ("scenario", "batch", "threads", "provider")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One metric of one variant at one length, before and after.

    Attributes:
        engine: of the runs.
        precision: of the runs.
        tokens: of the runs; 0 when lengths differ.
        metric: one of ``METRICS``.
        before: milliseconds, or bytes of ``peak_rss``.
        after: the same.
        factor: after over before with its 95 % interval; of ``peak_rss``, measured once, the interval is the value.
        noise: changes up to this are noise, whatever the interval says.
        verdict: what it amounts to.
    """

    engine: str
    precision: str
    tokens: int
    metric: str
    before: float
    after: float
    factor: Interval
    noise: float
    verdict: Literal["noise", "worse", "better"]

    @property
    def run(self) -> str:
        """What was run, in words."""
        return _name((self.engine, self.precision, self.tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two profiles against each other.

    Attributes:
        changes: of what both have.
        only_before: what only the first has, as ``engine precision, tokens``.
        only_after: what only the second has.
        notes: what disturbed one of them, and so may be what changed.
    """

    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limit:
    """How much worse a metric may get.

    Attributes:
        metric: one of ``METRICS``.
        percent: a change of more than this, that is no noise, is too much.
    """

    metric: str
    percent: float

    def __str__(self) -> str:
        return f"{self.metric}>+{self.percent:g}%"


def compare(before: Profile, after: Profile, *, across_machines: bool = False) -> Comparison:
    """Compare what was measured in both: the same engine, precision and number of tokens.

    Raises:
        DataError: the machines differ and ``across_machines`` does not allow it; the profiles have nothing in common;
            or what they have was measured in another way.
    """
    _check_machines(before, after, across_machines)
    first, second = _keyed(before.runs), _keyed(after.runs)
    common = [key for key in first if key in second]
    if not common:
        raise DataError(
            f"the two profiles have no engine, precision and length in common: {_names(first)} and {_names(second)}; "
            "measure the same"
        )
    for key in common:
        _check_same(first[key], second[key])
    return Comparison(
        changes=tuple(change for key in common for change in _changes(first[key], second[key])),
        only_before=tuple(_name(key) for key in first if key not in second),
        only_after=tuple(_name(key) for key in second if key not in first),
        notes=(*_notes("before", before.runs), *_notes("after", after.runs)),
    )


def limit(text: str) -> Limit:
    """Read a limit such as ``p50>+5%``.

    Raises:
        DataError: it is not of that form, or of a metric that is not known.
    """
    found = _LIMIT.fullmatch(text)
    if found is None or found["metric"] not in METRICS:
        raise DataError(f"--fail-if {text}: expected one of {', '.join(METRICS)} and how much, as in 'p50>+5%'")
    return Limit(found["metric"], float(found["percent"]))


def broken(changes: Iterable[Change], limits: Sequence[Limit]) -> list[tuple[Change, Limit]]:
    """The changes for the worse that are no noise and more than is allowed."""
    worse = [change for change in changes if change.verdict == "worse"]
    return [
        (change, one)
        for change in worse
        for one in limits
        if change.metric == one.metric and change.factor.value > 1 + one.percent / 100
    ]


def told(failed: Sequence[tuple[Change, Limit]]) -> str:
    """What is too much, in one line."""
    return "; ".join(
        f"{change.metric} of {change.run} is worse by "
        f"{(change.factor.value - 1) * 100:.1f} %, allowed were {one.percent:g} %"
        for change, one in failed
    )


_Key = tuple[str, str, int]


def _keyed(runs: Iterable[Run]) -> dict[_Key, Run]:
    return {(run.engine, run.precision, run.tokens): run for run in runs if run.samples_ns}


def _notes(which: str, runs: Iterable[Run]) -> Iterator[str]:
    """What interfered with a profile, each cause once."""
    runs = list(runs)
    found = dict.fromkeys(cause for run in runs for cause in causes(run.before, run.after))
    if found:
        text = f"While the profile {which} was measured, {', and '.join(found)}: the same may not be true of the other."
        noise = f" There, changes up to {100 * BUSY:.0f} % are taken for noise."
        yield text + (noise if any(map(_disturbed, runs)) else "")


def _disturbed(run: Run) -> bool:
    return bool(disturbances(run.before, run.after))


def _check_machines(before: Profile, after: Profile, across: bool) -> None:
    one, two = before.machine, after.machine
    if not across and fingerprint(one) != fingerprint(two):
        names = [f"{m.cpu} ({m.cores} cores, {m.memory_bytes / 2**30:.0f} GiB)" for m in (one, two)]
        raise DataError(f"the profiles are of different machines: {' and '.join(names)}; allow it by --across-machines")


def _check_same(before: Run, after: Run) -> None:
    for field in _MUST_MATCH:
        one, two = getattr(before, field), getattr(after, field)
        if one != two and not (field == "provider" and "" in (one, two)):  # version 1 did not tell the provider
            raise DataError(
                f"{_name((before.engine, before.precision, before.tokens))} was measured with {field} {one} before and "
                f"{two} after: measure both in the same way"
            )


def _changes(before: Run, after: Run) -> Iterable[Change]:
    one, two = (np.asarray(run.samples_ns, np.float64) / 1e6 for run in (before, after))
    noise = BUSY if _disturbed(before) or _disturbed(after) else NOISE
    for metric, percent in _PERCENTS.items():
        own, other = (bootstrap.point(samples, percent) for samples in (one, two))
        yield _change(before, metric, own, other, bootstrap.ratio(one, two, percent), noise)
    if before.peak_rss_bytes and after.peak_rss_bytes:
        factor = after.peak_rss_bytes / before.peak_rss_bytes
        single = Interval(factor, factor, factor)
        yield _change(before, "peak_rss", before.peak_rss_bytes, after.peak_rss_bytes, single, NOISE)


def _change(run: Run, metric: str, before: float, after: float, factor: Interval, noise: float) -> Change:
    return Change(
        engine=run.engine,
        precision=run.precision,
        tokens=run.tokens,
        metric=metric,
        before=before,
        after=after,
        factor=factor,
        noise=noise,
        verdict=_verdict(factor, noise),
    )


def _verdict(factor: Interval, noise: float) -> Literal["noise", "worse", "better"]:
    if factor.low <= 1 <= factor.high or abs(factor.value - 1) <= noise:
        return "noise"
    return "worse" if factor.value > 1 else "better"


def _names(keys: Iterable[_Key]) -> str:
    return "; ".join(_name(key) for key in keys) or "nothing"


def _name(key: _Key) -> str:
    engine, precision, tokens = key
    return f"{engine} {precision}, {tokens} tokens" if tokens else f"{engine} {precision}, lengths as drawn"
