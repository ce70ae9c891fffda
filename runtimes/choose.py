"""Which variant is fastest on this machine: measured once, remembered in the user's cache folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import msgspec
import numpy as np

from edgelm import runtimes
from edgelm.errors import BundleDamaged, BundleError, DeviceUnavailable, EdgelmError, SelfTestFailed
from edgelm.manifest import Manifest, Variant
from edgelm.runtimes import Session
from edgelm.runtimes.cache import key, recall, remember
from edgelm.runtimes.place import CPU, Place
from edgelm.runtimes.race import Usage, race, trial
from edgelm.schema import Strict

__all__ = ["Choice", "Fastest", "able", "fastest"]

_log = logging.getLogger("edgelm")
_TOKENS = (16, 32)
_SECONDS, _REST_S = 1.0, 0.02
_HOPELESS = 4.0  # times the fastest so far
_PROCESSOR = ("cpu", "xnnpack")
_HALF = ("cuda", "tensorrt")
"""Devices with half-precision units that nothing else of theirs comes near."""


class Fastest(Strict, frozen=True, kw_only=True):
    """What is remembered.

    Attributes:
        schema: the version of this format.
        bundle: what it was measured for, for people.
        device: where it runs.
        threads: of the engine.
        fastest_ms: as in ``Choice``.
        left_out: as in ``Choice``.
    """

    schema: Literal["edgelm.fastest/3"] = "edgelm.fastest/3"
    bundle: str
    device: str
    threads: int
    fastest_ms: dict[str, float]
    left_out: dict[str, str]

    @property
    def name(self) -> str:
        """The winner: ``engine precision``."""
        return min(self.fastest_ms, key=lambda name: self.fastest_ms[name])


@dataclass(frozen=True)
class Choice:
    """The variant to use.

    Attributes:
        variant: the fastest.
        session: of it, open.
        fastest_ms: by ``engine precision``, milliseconds that a request of 16 and one of 32 tokens took together,
            at best; while the machine was busy, that the engine's threads ran for them.
        left_out: by ``engine precision``, why one was not considered.
        cached: whether they were measured earlier.
    """

    variant: Variant
    session: Session
    fastest_ms: dict[str, float]
    left_out: dict[str, str] = field(default_factory=dict)
    cached: bool = False


def able(
    manifest: Manifest, engine: str | None = None, precision: str | None = None, device: str = "cpu"
) -> list[Variant]:
    """The variants of a bundle that are asked for and can run on a device of this machine, in its order.

    Args:
        manifest: of the bundle.
        engine: only this one; an engine of others runs every variant that is of its format.
        precision: only this one. On a GPU, ``fp16`` when nothing is asked for and the bundle has it.
        device: to run on.

    Raises:
        DeviceUnavailable: there is none; it says what the bundle has, and the cure for what the machine lacks.
    """
    fitting = [
        msgspec.structs.replace(variant, engine=engine or variant.engine)
        for variant in manifest.variants
        if (engine in (None, variant.engine) or _takes(engine, variant)) and precision in (None, variant.precision)
    ]
    if not fitting:
        asked = " ".join(filter(None, (engine, precision)))
        raise DeviceUnavailable(f"the bundle has no variant {asked}; {_has(manifest)}")
    lacks = {variant.engine: _lacks(variant.engine, device) for variant in fitting}
    found = [variant for variant in fitting if lacks[variant.engine] is None]
    if not found:
        reasons = "; ".join(sorted({reason for reason in lacks.values() if reason}))
        raise DeviceUnavailable(f"nothing in the bundle runs on device '{device}' here ({_has(manifest)}): {reasons}")
    half = [variant for variant in found if device in _HALF and str(variant.precision) == "fp16"]
    return half or found


def fastest(
    variants: Sequence[Variant],
    start: Callable[[Variant], Session],
    *,
    bundle: str,
    threads: int,
    vocab: int,
    place: Place = CPU,
) -> Choice:
    """Measure variants on this machine, or remember what was measured.

    Args:
        variants: at least one, all able to run here.
        start: opens one and tests it; whoever raises is left out, unless the bundle is damaged.
        bundle: what they are of, for people.
        threads: that they are opened with.
        vocab: token ids are below this.
        place: where they run.

    Raises:
        EdgelmError: none of them starts; the error is that of the smallest.
    """
    by_name = {_name(variant): variant for variant in variants}
    memory = f"fastest-{key(*(variant.digest for variant in variants), str(threads), str(place))}"
    known = recall(memory, Fastest)
    if known is not None and {*known.fastest_ms, *known.left_out} == set(by_name) and known.fastest_ms:
        variant = by_name[known.name]
        session = start(variant)
        return Choice(variant, session, known.fastest_ms, known.left_out, cached=True)
    sessions, seconds, left_out = _opened(variants, start, _inputs(variants, vocab))
    if len(sessions) > 1:
        requests = {name: request for name, (_, request) in sessions.items()}
        usage = _usage(threads) if place.device in _PROCESSOR else None
        seconds |= race(requests, seconds=_SECONDS, rest_s=_REST_S if threads > 1 else 0.0, usage=usage)
    times = {name: 1e3 * value for name, value in seconds.items()}
    found = Fastest(bundle=bundle, device=str(place), threads=threads, fastest_ms=times, left_out=left_out)
    for name, (session, _) in sessions.items():
        if name != found.name:
            session.close()
    remember(memory, found)
    return Choice(by_name[found.name], sessions[found.name][0], times, left_out)


def _opened(
    variants: Sequence[Variant],
    start: Callable[[Variant], Session],
    inputs: Sequence[runtimes.Ids],
) -> tuple[dict[str, tuple[Session, Callable[[], None]]], dict[str, float], dict[str, str]]:
    """Open the variants, smallest first; those that are slower by far are closed at once, since memory is short.

    Returns:
        By name: the sessions with a request of each; the seconds that one takes, of all; why others do not start.
    """
    sessions, seconds = dict[str, tuple[Session, Callable[[], None]]](), dict[str, float]()
    errors = dict[str, EdgelmError]()
    for variant in sorted(variants, key=lambda variant: variant.bytes):
        name = _name(variant)
        try:
            session = start(variant)
        except BundleDamaged:
            raise
        except (BundleError, DeviceUnavailable, SelfTestFailed) as exc:
            errors[name] = exc
            _log.warning("left out: %s", exc)
            continue
        request = partial(_run, session, inputs)
        seconds[name] = trial(request)
        if seconds[name] > _HOPELESS * min(seconds.values()):
            session.close()
        else:
            sessions[name] = session, request
    if not seconds:
        raise next(iter(errors.values()))
    return sessions, seconds, {name: str(error) for name, error in errors.items()}


def _usage(threads: int) -> Usage | None:
    """What this process used; None on Windows, which does not count how often a thread had to stop."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    return lambda: (time.process_time() / threads, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw)


def _run(session: Session, inputs: Sequence[runtimes.Ids]) -> None:
    for ids in inputs:
        session.run(ids, np.ones_like(ids))


def _inputs(variants: Sequence[Variant], vocab: int) -> list[runtimes.Ids]:
    """Random requests of the lengths that every variant takes; of the longest common one if none of them fits."""
    most = min((max(variant.lengths) for variant in variants if variant.lengths), default=max(_TOKENS))
    random = np.random.default_rng(0)
    fitting = [tokens for tokens in _TOKENS if tokens <= most] or [most]
    return [random.integers(0, vocab, (1, tokens), dtype=np.int32) for tokens in fitting]


def _takes(engine: str | None, variant: Variant) -> bool:
    """Whether an engine of others, asked for by name, runs what the bundle has for one of ours."""
    if engine is None or engine in runtimes.ENGINES or engine not in runtimes.names():
        return False
    return runtimes.engine(engine).FORMAT == variant.format


def _lacks(engine: str, device: str) -> str | None:
    """Why an engine does not run on a device here; None if it does."""
    try:
        found = runtimes.engine(engine)
    except DeviceUnavailable as exc:
        return str(exc)
    if device not in found.DEVICES:
        return f"{engine} runs on {', '.join(found.DEVICES)}"
    return found.missing(device)


def _has(manifest: Manifest) -> str:
    return "it has " + ", ".join(_name(variant) for variant in manifest.variants)


def _name(variant: Variant) -> str:
    return f"{variant.engine} {variant.precision}"
