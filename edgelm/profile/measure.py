"""Measuring a bundle on this machine: latency of every variant at every length, and peak memory of each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec
import psutil

from edgelm.bundle import Bundle
from edgelm.devices.machine import cores, machine
from edgelm.errors import DataError
from edgelm.manifest import Manifest, Profile, Run, Variant
from edgelm.profile.inputs import token_ids
from edgelm.profile.memory import peak_rss
from edgelm.profile.timing import interleaved
from edgelm.progress import Advance, Progress, silent
from edgelm.runtimes import Ids, engine
from edgelm.runtimes.choose import able

__all__ = ["LENGTHS", "Extra", "choose", "merge", "profile_bundle"]

LENGTHS = (16, 32, 64, 128)
"""Token lengths that are measured when none are asked for."""

_REST_S = 0.02
_STEPS = 100  # of the progress bar, for each length


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """Something that is measured beside the variants of a bundle, such as the original in PyTorch.

    Attributes:
        engine: its name in the profile: ``pytorch`` for the original.
        precision: named as that of a variant.
        run: takes ``input_ids`` and ``attention_mask``, int32, shape (batch, tokens).
        peak_rss: gives, for a number of tokens, the bytes of a fresh process; 0 when that is not known.
    """

    engine: str
    precision: str
    run: Callable[[Ids, Ids], object]
    peak_rss: Callable[[int], int] = lambda tokens: 0


def profile_bundle(
    bundle_path: Path | str,
    *,
    engines: Collection[str] | None = None,
    precisions: Collection[str] | None = None,
    tokens: Sequence[int] = LENGTHS,
    batch: int = 1,
    threads: int | None = None,
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
        seconds: at least so long for each length, all variants together.
        min_count: and at least so many samples of each.
        warmup: requests of each before that, not counted.
        progress: told what is being done.
        baseline: what to measure beside them.

    Raises:
        BundleError, DataError: the bundle cannot be read, or takes none of the lengths.
        DeviceUnavailable: no variant fits the filters, or an engine that was asked for cannot run here.
    """
    path, threads = Path(bundle_path), threads or cores()
    bundle = Bundle(path)
    lengths = _lengths(bundle.manifest, tokens)
    variants = choose(bundle.manifest, engines, precisions)
    load_start, runs = psutil.getloadavg()[0], list[Run]()
    with ExitStack() as stack:
        subjects = [*baseline, *(_loaded(stack, bundle, path, variant, batch, threads) for variant in variants)]
        advance = stack.enter_context(progress("measure latency", _STEPS * len(lengths)))
        for length in lengths:
            request = token_ids(length, batch=batch, vocab=bundle.manifest.model.vocab)
            samples = interleaved(
                {subject: partial(subject.run, *request) for subject in subjects},
                warmup=warmup,
                seconds=seconds,
                min_count=min_count,
                rest_s=_REST_S if threads > 1 else 0.0,
                progress=_steps(advance),
            )
            runs += [_run(subject, length, batch, threads, warmup, times) for subject, times in samples.items()]
    load_end = psutil.getloadavg()[0]
    return _profile(_with_memory(runs, subjects, progress), load_start, load_end)


def choose(
    manifest: Manifest, engines: Collection[str] | None = None, precisions: Collection[str] | None = None
) -> list[Variant]:
    """The variants of a bundle that can run on this machine, in its order.

    Args:
        manifest: of the bundle.
        engines: only these, which must be able to run here; all that can when not given.
        precisions: only these; all when not given.

    Raises:
        DeviceUnavailable: the bundle has nothing that was asked for, or this machine cannot run it; with the cure.
    """
    asked = itertools.product(engines or (None,), precisions or (None,))
    found = [variant for name, precision in asked for variant in able(manifest, name, precision)]
    return [variant for variant in manifest.variants if variant in found]


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
    load_start, load_end = max(first.load_start, second.load_start), max(first.load_end, second.load_end)
    runs = first.runs + second.runs
    return msgspec.structs.replace(first, runs=runs, load_start=load_start, load_end=load_end)


def _profile(runs: tuple[Run, ...], load_start: float, load_end: float) -> Profile:
    """The runs, with the machine and the version that measured them."""
    return Profile(
        schema="edgelm.profile/1",
        edgelm=version("edgelm"),
        machine=machine(),
        runs=runs,
        load_start=load_start,
        load_end=load_end,
    )


def _lengths(manifest: Manifest, tokens: Sequence[int]) -> list[int]:
    """The lengths that every variant takes, shortest first."""
    lengths = sorted({length for length in tokens if 1 <= length <= manifest.max_tokens})
    if not lengths:
        asked = ", ".join(map(str, tokens))
        raise DataError(f"no length to measure: the bundle takes 1 to {manifest.max_tokens} tokens, asked for {asked}")
    return lengths


def _loaded(stack: ExitStack, bundle: Bundle, path: Path, variant: Variant, batch: int, threads: int) -> Extra:
    """A variant, loaded until the stack is left."""
    session = engine(variant.engine).load(bundle.read(variant.file), threads=threads)
    stack.callback(session.close)
    return Extra(
        engine=variant.engine,
        precision=variant.precision,
        run=session.run,
        peak_rss=lambda tokens: peak_rss(path, variant.file, tokens=tokens, threads=threads, batch=batch),
    )


def _run(subject: Extra, tokens: int, batch: int, threads: int, warmup: int, samples_ns: tuple[int, ...]) -> Run:
    """One measured series, its memory not yet known."""
    return Run(
        engine=subject.engine,
        precision=subject.precision,
        tokens=tokens,
        batch=batch,
        threads=threads,
        warmup=warmup,
        samples_ns=samples_ns,
        peak_rss_bytes=0,
    )


def _with_memory(runs: Sequence[Run], subjects: Sequence[Extra], progress: Progress) -> tuple[Run, ...]:
    """The runs with their peak memory: measured after all the latencies, because it starts processes of its own."""
    peaks = {(subject.engine, subject.precision): subject.peak_rss for subject in subjects}
    done = list[Run]()
    with progress("measure memory", len(runs)) as advance:
        for run in runs:
            peak = peaks[run.engine, run.precision](run.tokens)
            done.append(msgspec.structs.replace(run, peak_rss_bytes=peak))
            advance(1)
    return tuple(done)


def _steps(advance: Advance) -> Callable[[float], None]:
    """Turn a growing share from 0 to 1 into whole steps of a progress bar."""
    told = 0

    def tell(share: float) -> None:
        nonlocal told
        steps = int(share * _STEPS)
        advance(steps - told)
        told = steps

    return tell
