"""A bundle under the load of a scenario: each variant alone, with requests of the lengths that people send."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Literal

from edgelm.bundle import Bundle
from edgelm.devices.conditions import now
from edgelm.devices.machine import cores
from edgelm.profile.inputs import Request
from edgelm.profile.loadgen import MIN_COUNT, MIN_SECONDS, Load, Outcome, generate
from edgelm.profile.measure import profile_of
from edgelm.profile.subject import Extra, choose, loaded
from edgelm.progress import Progress, silent
from edgelm.runs import Conditions, Profile, Run
from edgelm.runtimes.place import CPU, Place

__all__ = ["BOUND_MS", "profile_scenario", "throughput"]

BOUND_MS = 100.0
"""What 99 % of the requests of ``server`` have to keep when nothing is said: what people feel as at once."""

_SHARE = 0.5  # of what a variant can do: the rate of ``server`` when nothing is said
_WARMUP = 20
_Generate = Callable[[Sequence[Callable[[], object]], Load], Outcome]


def profile_scenario(
    bundle: Bundle,
    scenario: Literal["single-stream", "offline", "server"],
    requests: Sequence[Request],
    *,
    engines: Collection[str] | None = None,
    precisions: Collection[str] | None = None,
    threads: int | None = None,
    place: Place = CPU,
    min_seconds: float = MIN_SECONDS,
    min_count: int = MIN_COUNT,
    rate: float | None = None,
    bound_ms: float = BOUND_MS,
    progress: Progress = silent,
    generator: _Generate = generate,
) -> Profile:
    """Measure the variants of a bundle on this machine, one after the other.

    Args:
        bundle: what is measured.
        scenario: how requests come.
        requests: what is drawn from.
        engines: only these; all that can run here when not given.
        precisions: only these; all when not given.
        threads: for each engine; the physical cores that this process may use when not given.
        place: where to run.
        min_seconds: each variant for at least so long.
        min_count: and for at least so many requests.
        rate: requests a second of ``server``; half of what the variant can do when not given.
        bound_ms: of ``server``: what 99 % of the requests have to keep.
        progress: told what is being done.
        generator: makes the load.

    Raises:
        DeviceUnavailable: no variant fits the filters, or an engine that was asked for cannot run here.
        MissingExtra: LoadGen is not installed.
    """
    threads, runs = threads or cores(), list[Run]()
    variants = choose(bundle.manifest, engines, precisions, place)
    with ExitStack() as stack, progress(f"measure {scenario}", len(variants)) as advance:
        for variant in variants:
            subject = loaded(stack, bundle, variant, threads=threads, place=place)
            able = _rate(subject, requests)
            asked = able if scenario != "server" else rate or able * _SHARE
            load = Load(
                scenario=scenario,
                min_seconds=min_seconds,
                min_count=min_count,
                rate=asked,
                bound_ns=int(bound_ms * 1e6),
            )
            before = now()
            outcome = generator([partial(subject.run, *request) for request in requests], load)
            runs.append(_run(subject, scenario, requests, outcome, threads, before))
            advance(1)
    return profile_of(runs)


def throughput(run: Run) -> float | None:
    """Answers a second, from the first request to the last answer; None of runs that do not tell when requests came."""
    if not run.at_ns:
        return None
    end = max(at + took for at, took in zip(run.at_ns, run.samples_ns, strict=True))
    return run.every * len(run.at_ns) / (end / 1e9) if end else None


def _rate(subject: Extra, requests: Sequence[Request]) -> float:
    """Requests a second that a variant answers, from a few of them; the first ones warm it up."""
    times = list[float]()
    for index in range(2 * _WARMUP):
        begin = time.perf_counter()
        subject.run(*requests[index % len(requests)])
        times.append(time.perf_counter() - begin)
    return 1 / max(statistics.fmean(times[_WARMUP:]), 1e-6)


def _run(
    subject: Extra, scenario: str, requests: Sequence[Request], outcome: Outcome, threads: int, before: Conditions
) -> Run:
    lengths = tuple(requests[row][0].shape[1] for row in outcome.rows)
    same = len(set(lengths)) == 1
    return Run(
        engine=subject.engine,
        precision=subject.precision,
        provider=subject.provider,
        scenario=scenario,  # type: ignore[arg-type]  # one of Scenario's, by the caller's type
        tokens=lengths[0] if same else 0,
        lengths=() if same else lengths,
        batch=1,
        threads=threads,
        warmup=2 * _WARMUP,
        samples_ns=outcome.samples_ns,
        at_ns=outcome.at_ns,
        before=before,
        after=now(),
        verdict=outcome.verdict,
        loadgen_ns=outcome.loadgen_ns,
    )
