"""Which variant is fastest on this machine: measured once, remembered in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edgelm import runtimes
from edgelm.devices.machine import machine
from edgelm.errors import DeviceUnavailable
from edgelm.manifest import Manifest, Variant
from edgelm.runtimes import Session

__all__ = ["Choice", "able", "cache_folder", "fastest"]

_log = logging.getLogger("edgelm")
_TOKENS = (16, 32)
_WARMUP, _ROUNDS = 3, 15


@dataclass(frozen=True)
class Choice:
    """The variant to use.

    Attributes:
        variant: the fastest.
        medians_ms: by ``engine precision``, milliseconds for one request of 16 and one of 32 tokens together.
        cached: whether they were measured earlier.
    """

    variant: Variant
    medians_ms: dict[str, float]
    cached: bool


def able(manifest: Manifest, engine: str | None = None, precision: str | None = None) -> list[Variant]:
    """The variants of a bundle that are asked for and can run on this machine, in its order.

    Raises:
        DeviceUnavailable: there is none; it says what the bundle has, and the cure for what the machine lacks.
    """
    fitting = [
        variant
        for variant in manifest.variants
        if engine in (None, variant.engine) and precision in (None, variant.precision)
    ]
    if not fitting:
        has = ", ".join(f"{variant.engine} {variant.precision}" for variant in manifest.variants)
        asked = " ".join(filter(None, (engine, precision)))
        raise DeviceUnavailable(f"the bundle has no variant {asked}; it has {has}")
    lacks = {variant.engine: runtimes.engine(variant.engine).missing() for variant in fitting}
    found = [variant for variant in fitting if lacks[variant.engine] is None]
    if not found:
        raise DeviceUnavailable("; ".join(sorted({reason for reason in lacks.values() if reason})))
    return found


def fastest(variants: Sequence[Variant], load: Callable[[Variant], Session], *, threads: int, vocab: int) -> Choice:
    """Measure variants on this machine, or remember what was measured.

    Args:
        variants: at least one, all able to run here.
        load: opens one.
        threads: that it is opened with.
        vocab: token ids are below this.
    """
    path = cache_folder() / f"fastest-{_key(variants, threads)}.json"
    medians = _remembered(path, variants)
    cached = medians is not None
    if medians is None:
        medians = _measured(variants, load, vocab)
        _remember(path, medians)
    return Choice(min(variants, key=lambda variant: medians[_name(variant)]), medians, cached)


def cache_folder() -> Path:
    """``$EDGELM_CACHE``, else ``edgelm`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    own, shared = os.environ.get("EDGELM_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "edgelm"


def _measured(variants: Sequence[Variant], load: Callable[[Variant], Session], vocab: int) -> dict[str, float]:
    """Median milliseconds of each variant, measured in turns so that what disturbs one disturbs all."""
    sessions = {_name(variant): load(variant) for variant in variants}
    random = np.random.default_rng(0)
    inputs = [random.integers(0, vocab, (1, tokens), dtype=np.int32) for tokens in _fitting(variants)]
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(_WARMUP + _ROUNDS):
        for name, session in sessions.items():
            start = time.perf_counter()
            for ids in inputs:
                session.run(ids, np.ones_like(ids))
            if turn >= _WARMUP:
                times[name].append(1e3 * (time.perf_counter() - start))
    for session in sessions.values():
        session.close()
    return {name: statistics.median(series) for name, series in times.items()}


def _fitting(variants: Sequence[Variant]) -> list[int]:
    """The lengths to measure at that every variant takes; the longest common one if none of them fits."""
    most = min((max(variant.lengths) for variant in variants if variant.lengths), default=max(_TOKENS))
    return [tokens for tokens in _TOKENS if tokens <= most] or [most]


def _name(variant: Variant) -> str:
    return f"{variant.engine} {variant.precision}"


def _key(variants: Sequence[Variant], threads: int) -> str:
    """What a measurement holds for: these artifacts, this machine, these versions, so many threads."""
    parts = [*(variant.sha256 for variant in variants), str(threads)]
    return hashlib.sha256("\n".join(parts).encode() + msgspec.json.encode(machine())).hexdigest()[:32]


def _remembered(path: Path, variants: Sequence[Variant]) -> dict[str, float] | None:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, float])
    except (OSError, msgspec.DecodeError):
        return None
    return found if {_name(variant) for variant in variants} == set(found) else None


def _remember(path: Path, medians: dict[str, float]) -> None:
    """Write under a temporary name and rename: two processes may do this at the same time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            json.dump(medians, file)
        Path(file.name).replace(path)
    except OSError as exc:
        _tell_once(f"{path.parent}: cannot be written ({exc.strerror}); the fastest variant is measured at every load")


def _tell_once(message: str, told: set[str] = set()) -> None:  # noqa: B006 - that it lasts is the point
    if message not in told:
        told.add(message)
        _log.warning("%s", message)
