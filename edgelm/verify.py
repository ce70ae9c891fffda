"""Is a bundle what was built, and does it compute here what it should? Hashes, and golden outputs of every variant."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from edgelm import runtimes
from edgelm.bundle import Bundle
from edgelm.devices.machine import cores
from edgelm.errors import BundleError, DeviceUnavailable, SelfTestFailed
from edgelm.manifest import Variant
from edgelm.progress import Progress, silent
from edgelm.runtimes import selftest
from edgelm.runtimes.choose import able
from edgelm.runtimes.place import CPU, Place
from edgelm.schema import to_dict

__all__ = ["verify"]


def verify(
    path: Path, *, threads: int | None = None, where: Place = CPU, progress: Progress = silent
) -> dict[str, Any]:
    """Check a bundle on this machine.

    Args:
        path: the bundle.
        threads: for the engines; the physical cores that this process may use when not given.
        where: the device to run on.
        progress: shown while it runs.

    Returns:
        ``entries[]``, each with ``entry`` and ``problem``, which is None where the content is what was written;
        ``variants[]``, each with ``engine``, ``precision``, ``state`` (``passed``, ``failed`` or ``not here``),
        ``problem`` and, if it ran, the figures of the verdict and ``ms``, the time its test took; ``ok``: nothing is
        damaged, nothing failed, and something passed.

    Raises:
        BundleError: it cannot be opened, or holds no golden inputs.
    """
    bundle, threads = Bundle(path), threads or cores()
    golden = selftest.rows(bundle.read(selftest.ENTRY))
    with progress("read", len(bundle.downloads)) as advance:
        entries = []
        for name in bundle.downloads:
            entries.append({"entry": name, "problem": _damage(bundle, name)})
            advance(1)
    with progress("run the golden inputs", len(bundle.manifest.variants)) as advance:
        variants = []
        for variant in bundle.manifest.variants:
            variants.append(_state(bundle, variant, golden, threads, where))
            advance(1)
    states = [variant["state"] for variant in variants]
    whole = not any(entry["problem"] for entry in entries)
    return {"entries": entries, "variants": variants, "ok": whole and "failed" not in states and "passed" in states}


def _damage(bundle: Bundle, name: str) -> str | None:
    """What is wrong with an entry: its checksum, or of a variant its hash."""
    try:
        bundle.check(name)
    except BundleError as exc:
        return str(exc)
    return None


def _state(bundle: Bundle, variant: Variant, golden: list[selftest.Row], threads: int, where: Place) -> dict[str, Any]:
    """How a variant does here."""
    facts: dict[str, Any] = {"engine": variant.engine, "precision": variant.precision}
    start = time.perf_counter()
    try:
        able(bundle.manifest, variant.engine, variant.precision, where.device)
    except DeviceUnavailable as exc:
        return facts | {"state": "not here", "problem": str(exc)}
    try:
        session = runtimes.load(bundle, variant, threads=threads, place=where)
        try:
            verdict = selftest.compare(variant, session, golden)
        finally:
            session.close()
        figures = {name: value for name, value in to_dict(verdict).items() if name != "schema"}
        facts |= figures | {"ms": 1e3 * (time.perf_counter() - start)}
        selftest.enforce(verdict, variant)
    except DeviceUnavailable as exc:
        return facts | {"state": "not here", "problem": str(exc)}
    except (BundleError, SelfTestFailed) as exc:
        return facts | {"state": "failed", "problem": str(exc)}
    return facts | {"state": "passed", "problem": None}
