"""Measuring a bundle on this machine: latency of every variant at every length, and a fresh process of each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec

from edgelm.bundle import Bundle
from edgelm.devices.conditions import now
from edgelm.devices.machine import cores, machine
from edgelm.errors import DataError
from edgelm.manifest import Manifest
from edgelm.profile.inputs import token_ids
from edgelm.profile.subject import Extra, choose, loaded
from edgelm.profile.timing import interleaved
from edgelm.progress import Advance, Progress, silent
from edgelm.runs import Conditions, Profile, Run
from edgelm.runtimes import null
from edgelm.runtimes.place import CPU, Place

__all__ = ["LENGTHS", "merge", "profile_bundle", "profile_of", "steps"]

LENGTHS = (16, 32, 64, 128)
"""Token lengths that are measured when none are asked for."""

_REST_S = 0.02
_STEPS = 100  # of the progress bar, for each length


def profile_bundle(
    bundle_path: Path | str,
    *,
    engines: Collection[str] | None = None,
    precisions: Collection[str] | None = None,
    tokens: Sequence[int] = LENGTHS,
    batch: int = 1,
    threads: int | None = None,
    place: Place = CPU,
    seconds: float = 3.0,
    min_count: int = 100,
    warmup: int = 5,
    progress: Progress = silent,
    baseline: Sequence[Extra] = (),
) -> Profile:
    """Measure the variants of a bundle on this machine.

    Args:
        bundle_path: the ``.edgelm`` file.
        engines: only these; all that can run here when not given.
        precisions: only these; all when not given.
        tokens: lengths; those beyond what the bundle takes are left out.
        batch: rows a request.
        threads: for each engine; the physical cores that this process may use when not given.
        place: where to run.
        seconds: at least so long for each length, all variants together.
        min_count: and at least so many samples of each.
        warmup: requests of each before that, not counted.
        progress: told what is being done.
        baseline: what to measure beside them.

    Raises:
        BundleError, DataError: the bundle cannot be read, or takes none of the lengths.
        DeviceUnavailable: no variant fits the filters, or an engine that was asked for cannot run here.
    """
    threads, bundle, runs = threads or cores(), Bundle(Path(bundle_path)), list[Run]()
    lengths = _lengths(bundle.manifest, tokens)
    variants = choose(bundle.manifest, engines, precisions, place)
    with ExitStack() as stack:
        sessions = (loaded(stack, bundle, one, threads=threads, batch=batch, place=place) for one in variants)
        subjects = [*baseline, *sessions]
        nothing = Extra(engine="null", precision="", run=null.load(b"1", threads=threads).run)
        advance = stack.enter_context(progress("measure latency", _STEPS * len(lengths)))
        for length in lengths:
            request = token_ids(length, batch=batch, vocab=bundle.manifest.model.vocab)
            before = now()
            samples = interleaved(
                {subject: partial(subject.run, *request) for subject in (*subjects, nothing)},
                warmup=warmup,
                seconds=seconds,
                min_count=min_count,
                rest_s=_REST_S if threads > 1 else 0.0,
                progress=steps(advance, _STEPS),
            )
            harness = int(statistics.median(samples.pop(nothing)))
            runs += _runs(samples, length, batch, threads, warmup, harness, before)
    return profile_of(_with_fresh(runs, subjects, progress))


def merge(first: Profile, second: Profile) -> Profile:
    """The runs of two profiles of one machine as one profile.

    Raises:
        DataError: they were measured on different machines, or with different versions.
    """
    if (first.machine, first.edgelm) != (second.machine, second.edgelm):
        raise DataError(
            f"profiles of different machines or versions cannot be merged: {first.machine.cpu} (edgelm {first.edgelm}) "
            f"and {second.machine.cpu} (edgelm {second.edgelm}); keep them apart"
        )
    return msgspec.structs.replace(first, runs=first.runs + second.runs)


def profile_of(runs: Sequence[Run]) -> Profile:
    """Runs that were measured here, with the machine and the version that measured them."""
    return Profile(schema="edgelm.profile/2", edgelm=version("edgelm"), machine=machine(), runs=tuple(runs))


def steps(advance: Advance, count: int) -> Callable[[float], None]:
    """Turn a growing share from 0 to 1 into whole steps of a progress bar."""
    told = 0

    def tell(share: float) -> None:
        nonlocal told
        reached = int(share * count)
        advance(reached - told)
        told = reached

    return tell


def _lengths(manifest: Manifest, tokens: Sequence[int]) -> list[int]:
    """The lengths that every variant takes, shortest first."""
    lengths = sorted({length for length in tokens if 1 <= length <= manifest.max_tokens})
    if not lengths:
        asked = ", ".join(map(str, tokens))
        raise DataError(f"no length to measure: the bundle takes 1 to {manifest.max_tokens} tokens, asked for {asked}")
    return lengths


def _runs(
    samples: Mapping[Extra, tuple[int, ...]],
    tokens: int,
    batch: int,
    threads: int,
    warmup: int,
    harness_ns: int,
    before: Conditions,
) -> list[Run]:
    """What was measured in turn at one length, as runs."""
    after = now()
    return [
        Run(
            engine=subject.engine,
            precision=subject.precision,
            provider=subject.provider,
            tokens=tokens,
            batch=batch,
            threads=threads,
            warmup=warmup,
            samples_ns=times,
            harness_ns=harness_ns,
            before=before,
            after=after,
        )
        for subject, times in samples.items()
    ]


def _with_fresh(runs: Sequence[Run], subjects: Sequence[Extra], progress: Progress) -> list[Run]:
    """The runs with what fresh processes tell: after all the latencies, because those would disturb them."""
    asked = {(subject.engine, subject.precision): subject.fresh for subject in subjects}
    done = list[Run]()
    with progress("measure memory", len(runs)) as advance:
        for run in runs:
            done.append(msgspec.structs.replace(run, fresh=asked[run.engine, run.precision](run.tokens)))
            advance(1)
    return done
