"""What a reader should know before trusting the latencies, and which differences are none."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from edgelm.profile import stats
from edgelm.profile.bootstrap import Interval
from edgelm.runs import Conditions, Profile, Run

__all__ = ["causes", "change", "disturbances", "doubts", "ties"]

_FEW = 100
_BUSY = 0.5  # of the cores: load average when measuring began
_OTHERS = 0.2  # cores used by other programs meanwhile
_STOLEN = 0.02  # of the time of a core
_CLOCK = 0.05
_DEGREES = 5.0
_ORIGINAL = "pytorch"


def doubts(profile: Profile) -> tuple[str, ...]:
    """Scatter and its causes, few samples, a busy machine, variants that are equally fast: one sentence for each."""
    runs = profile.runs
    alike = [run for run in runs if run.scenario == "quick"]  # of others the lengths or the waiting differ
    others = [run for run in runs if run.scenario != "quick"]
    found = [*_scatter(alike), *_disturbed(others), *_few(runs), *_invalid(runs), *_busy(profile), *ties(alike)]
    return tuple(found)


def causes(before: Conditions, after: Conditions) -> tuple[str, ...]:
    """What changed or interfered between two moments, as far as the machine tells; nothing when it tells nothing."""
    return (*_governor(before), *disturbances(before, after))


def disturbances(before: Conditions, after: Conditions) -> tuple[str, ...]:
    """Of the causes those that come and go: what one run had to bear and another one may not."""
    return tuple([*_clock(before, after), *_heat(before, after), *_interference(before, after)])


def ties(runs: Iterable[Run]) -> tuple[str, ...]:
    """Of the variants measured in turn at one length: neighbours in speed whose difference is inside the noise."""
    found = []
    own = [run for run in runs if run.engine != _ORIGINAL and run.samples_ns]
    for tokens, group in itertools.groupby(sorted(own, key=_tokens), key=_tokens):
        ranked = sorted(group, key=lambda run: stats.percentile_ms(run.samples_ns, 50))
        for faster, slower in itertools.pairwise(ranked):
            factor = stats.apart(faster, slower)
            if stats.inside_noise(factor):
                pair = f"{faster.name} and {slower.name}"
                noise = f"the difference between {pair} is inside the noise ({change(factor)})"
                found.append(f"At {tokens} tokens {noise}.")
    return tuple(found)


def change(factor: Interval) -> str:
    """A factor as a change in per cent, with its 95 % interval: ``+1.2 %, -0.4 to +2.9``."""
    value, low, high = (f"{(part - 1) * 100:+.1f}" for part in (factor.value, factor.low, factor.high))
    return f"{value} %, {low} to {high}"


def _tokens(run: Run) -> int:
    return run.tokens


def _scatter(runs: Sequence[Run]) -> Iterator[str]:
    """Runs that are unstable, those with the same causes together."""
    reasons: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if stats.unstable(run):
            reasons.setdefault(causes(run.before, run.after), []).append(run)
    for why, unsteady in reasons.items():
        tail = f" Meanwhile {' and '.join(why)}." if why else ""
        text = "These may be unstable, their standard deviation is 10 % of the mean or more"
        yield f"{text}: {_which(unsteady)}.{tail}"


def _disturbed(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        why = causes(run.before, run.after)
        if why:
            yield f"While {run.name} ran, {' and '.join(why)}."


def _few(runs: Sequence[Run]) -> Iterator[str]:
    few = [run for run in runs if len(run.samples_ns) < _FEW]
    if few:
        yield f"These have fewer than {_FEW} samples, so that p99 is their maximum: {_which(few)}."


def _invalid(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        if run.verdict not in ("", "VALID"):
            yield f"By MLPerf's rules the run of {run.name} does not count: {run.verdict.strip()}"


def _busy(profile: Profile) -> Iterator[str]:
    if profile.load_start is not None and profile.load_start > _BUSY * profile.machine.cores:
        yield f"The machine was busy when measuring began: its load average was {profile.load_start:.1f}."


def _clock(before: Conditions, after: Conditions) -> Iterator[str]:
    if before.mhz and after.mhz and abs(after.mhz / before.mhz - 1) > _CLOCK:
        yield f"the clock went from {before.mhz:.0f} to {after.mhz:.0f} MHz"


def _governor(before: Conditions) -> Iterator[str]:
    slow = [name for name in before.governors if name != "performance"]
    if slow:
        yield f"the frequency governor was {', '.join(slow)}"


def _heat(before: Conditions, after: Conditions) -> Iterator[str]:
    if before.throttled is not None and after.throttled is not None and after.throttled > before.throttled:
        yield f"the processor throttled itself {after.throttled - before.throttled} times"
    if before.celsius is not None and after.celsius is not None and abs(after.celsius - before.celsius) > _DEGREES:
        yield f"its temperature went from {before.celsius:.0f} to {after.celsius:.0f} °C"


def _interference(before: Conditions, after: Conditions) -> Iterator[str]:
    seconds = _grown(before.clock_s, after.clock_s)
    if not seconds:
        return
    busy, own = _grown(before.busy_s, after.busy_s), _grown(before.own_s, after.own_s)
    if busy is not None and own is not None and (busy - own) / seconds > _OTHERS:
        yield f"other programs used {(busy - own) / seconds:.1f} cores"
    stolen = _grown(before.stolen_s, after.stolen_s)
    if stolen is not None and stolen / seconds > _STOLEN:
        yield f"the host of this virtual machine took {stolen / seconds:.0%} of a core away"


def _grown(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _which(runs: Iterable[Run]) -> str:
    """Variants, each with the lengths of its runs."""
    lengths: dict[str, list[str]] = {}
    for run in runs:
        lengths.setdefault(run.name, []).append(str(run.tokens) if run.tokens else run.scenario)
    tokens = {name: ", ".join(found) + (" tokens" if found[-1].isdigit() else "") for name, found in lengths.items()}
    return "; ".join(f"{name} at {found}" for name, found in tokens.items())
