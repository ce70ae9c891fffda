"""Latency under load that does not end: what is left of the first minute's speed when the device is warm."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgelm.bundle import Bundle
from edgelm.devices.conditions import now
from edgelm.devices.machine import cores
from edgelm.manifest import Variant
from edgelm.profile.inputs import token_ids
from edgelm.profile.measure import profile_of, steps
from edgelm.profile.subject import choose, loaded
from edgelm.progress import Progress, silent
from edgelm.runs import Conditions, Profile, Run
from edgelm.runtimes import load
from edgelm.runtimes.choose import fastest
from edgelm.runtimes.place import CPU, Place

__all__ = ["Series", "Window", "profile_sustained", "repeat", "windows"]

_KEPT = 100_000  # requests: of a longer run every so-manieth is kept
_LOOK_S = 1.0
_WARMUP = 20
_CLOCK, _SLOWER = 0.05, 0.10


@dataclass(frozen=True, slots=True)
class Series:
    """Requests that came one after the other.

    Attributes:
        at_ns: when each one that was kept began, after the first.
        samples_ns: how long it took.
        every: one of so many was kept.
        during: the machine, about once a second.
    """

    at_ns: tuple[int, ...]
    samples_ns: tuple[int, ...]
    every: int
    during: tuple[Conditions, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A part of a sustained run, of a minute or less.

    Attributes:
        begin_s: after the first request.
        p50: median of the requests that began in it, in milliseconds.
        p99: their 99th percentile.
        n: how many were kept.
        mhz: mean clock, if the machine tells it.
        celsius: highest temperature, if the machine tells it.
        throttled: why it is slower than the first window, as far as that is so.
    """

    begin_s: float
    p50: float
    p99: float
    n: int
    mhz: float | None
    celsius: float | None
    throttled: str


def profile_sustained(
    bundle: Bundle,
    *,
    seconds: float,
    tokens: int,
    engines: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    threads: int | None = None,
    place: Place = CPU,
    progress: Progress = silent,
) -> Profile:
    """Run one variant without a pause: of those that fit the filters, the fastest here.

    Args:
        bundle: what is measured.
        seconds: how long.
        tokens: length of every input.
        engines: only these; all that can run here when not given.
        precisions: only these; all when not given.
        threads: for the engine; the physical cores that this process may use when not given.
        place: where to run.
        progress: told what is being done.

    Raises:
        DeviceUnavailable: no variant fits the filters, or an engine that was asked for cannot run here.
    """
    threads = threads or cores()
    with ExitStack() as stack, progress("measure sustained", 100) as advance:
        variant = _fastest(bundle, choose(bundle.manifest, engines, precisions, place), threads, place)
        subject = loaded(stack, bundle, variant, threads=threads, place=place)
        request = partial(subject.run, *token_ids(tokens, batch=1, vocab=bundle.manifest.model.vocab))
        for _ in range(_WARMUP):
            request()
        before = now()
        series = repeat(request, seconds=seconds, progress=steps(advance, 100))
        run = Run(
            engine=subject.engine,
            precision=subject.precision,
            provider=subject.provider,
            scenario="sustained",
            tokens=tokens,
            batch=1,
            threads=threads,
            warmup=_WARMUP,
            samples_ns=series.samples_ns,
            at_ns=series.at_ns,
            every=series.every,
            before=before,
            after=now(),
            during=series.during,
        )
    return profile_of([run])


def repeat(
    request: Callable[[], object],
    *,
    seconds: float,
    progress: Callable[[float], None] = lambda share: None,
    clock: Callable[[], int] = time.perf_counter_ns,
    look: Callable[[], Conditions] = now,
) -> Series:
    """Call a request again and again.

    Args:
        request: what to call.
        seconds: how long.
        progress: told which share of the time is over, from 0 to 1.
        clock: nanoseconds from any origin.
        look: asked about once a second what the machine is like, between two requests.
    """
    at, samples, during = list[int](), list[int](), list[Conditions]()
    begin = looked = clock()
    count, every = 0, 1
    while (start := clock()) - begin < seconds * 1e9:
        request()
        if count % every == 0:
            at.append(start - begin)
            samples.append(clock() - start)
        count += 1
        if clock() - looked >= _LOOK_S * 1e9:
            looked = clock()
            during.append(look())
            progress(min(1.0, (looked - begin) / 1e9 / seconds))
            if len(at) > _KEPT:
                at, samples, every = at[::2], samples[::2], 2 * every
    progress(1.0)
    return Series(tuple(at), tuple(samples), every, tuple(during))


def windows(run: Run) -> tuple[Window, ...]:
    """A sustained run minute by minute; one of less than two minutes in two halves."""
    if not run.at_ns:
        return ()
    at, took = np.array(run.at_ns) / 1e9, np.array(run.samples_ns) / 1e6
    length = min(60.0, max(float(at[-1]), 1e-9) / 2)
    found = list[Window]()
    for number in range(max(1, int(at[-1] / length))):
        inside = (at >= number * length) & (at < (number + 1) * length)
        if inside.any():
            during = _between(run, number * length, (number + 1) * length)
            first = found[0] if found else None
            found.append(_window(number * length, took[inside], during, first))
    return tuple(found)


def _window(begin_s: float, took: NDArray[np.float64], during: Sequence[Conditions], first: Window | None) -> Window:
    p50, p99 = (float(np.percentile(took, percent, method="inverted_cdf")) for percent in (50, 99))
    clocks = [one.mhz for one in during if one.mhz is not None]
    mhz = sum(clocks) / len(clocks) if clocks else None
    return Window(
        begin_s=begin_s,
        p50=p50,
        p99=p99,
        n=took.size,
        mhz=mhz,
        celsius=max((one.celsius for one in during if one.celsius is not None), default=None),
        throttled=", ".join(_reasons(p50, mhz, during, first)),
    )


def _reasons(p50: float, mhz: float | None, during: Sequence[Conditions], first: Window | None) -> list[str]:
    reasons = list[str]()
    counts = [one.throttled for one in during if one.throttled is not None]
    if counts and counts[-1] > counts[0]:
        reasons.append(f"throttled {counts[-1] - counts[0]} times")
    if first is not None and mhz and first.mhz and mhz < (1 - _CLOCK) * first.mhz:
        reasons.append(f"clock {100 * (mhz / first.mhz - 1):.0f} %")
    if first is not None and p50 > (1 + _SLOWER) * first.p50:
        reasons.append(f"median +{100 * (p50 / first.p50 - 1):.0f} %")
    return reasons


def _between(run: Run, begin_s: float, end_s: float) -> list[Conditions]:
    start = run.before.clock_s
    if start is None:
        return []
    return [one for one in run.during if one.clock_s is not None and begin_s <= one.clock_s - start < end_s]


def _fastest(bundle: Bundle, variants: Sequence[Variant], threads: int, place: Place) -> Variant:
    if len(variants) == 1:
        return variants[0]
    choice = fastest(
        variants,
        lambda variant: load(bundle, variant, threads=threads, place=place),
        bundle=bundle.path.name,
        threads=threads,
        vocab=bundle.manifest.model.vocab,
        place=place,
    )
    choice.session.close()
    return choice.variant
