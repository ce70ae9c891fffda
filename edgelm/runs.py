"""A measured profile: raw samples of each run, the machine they ran on, its conditions before and after.

Statistics are derived from it, never stored. Sizes are in bytes, times in nanoseconds unless a name says otherwise.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edgelm.errors import EdgelmError
from edgelm.manifest import Machine
from edgelm.schema import Strict, decode

__all__ = ["Conditions", "Energy", "Fresh", "Op", "Peak", "Profile", "Run", "Scenario", "read"]

Scenario = Literal["quick", "single-stream", "offline", "server", "sustained"]


class Conditions(Strict, frozen=True, kw_only=True):
    """What the machine was like at one moment. What it does not tell is absent.

    Attributes:
        at: UTC, ISO 8601.
        clock_s: the monotonic clock, so that the time between two moments is known.
        load: 1-minute load average.
        governors: of the processors that this process may use, each once, sorted.
        mhz: mean clock of those processors.
        celsius: the hottest sensor of the processor.
        throttled: how often it has slowed itself down for its heat, since the machine started.
        quota: cores that the control groups of this process allow.
        memory_bytes: available to programs.
        power: ``mains`` or ``battery``.
        busy_s: processor time used by all programs since the machine started.
        stolen_s: processor time that a virtual machine's host gave to others meanwhile.
        own_s: processor time used by this process.
    """

    at: str | None = None
    clock_s: float | None = None
    load: float | None = None
    governors: tuple[str, ...] = ()
    mhz: float | None = None
    celsius: float | None = None
    throttled: int | None = None
    quota: float | None = None
    memory_bytes: int | None = None
    power: Literal["mains", "battery"] | None = None
    busy_s: float | None = None
    stolen_s: float | None = None
    own_s: float | None = None


class Fresh(Strict, frozen=True, kw_only=True):
    """What a fresh process told that only loads one variant and runs it. What was not measured is absent.

    Attributes:
        peak_bytes: its highest resident memory.
        cold_ns: from the start of the process to its first answer: interpreter, imports, loading, first request.
        load_ns: of that, reading the variant and building the engine's session.
        first_ns: of that, the first request.
        steady_ns: median of the requests after it.
        resident_bytes: resident memory after them.
        rest_bytes: resident memory half a second later, without requests: what an idle app holds.
        proportional_bytes: at that time, with pages that other processes share counted in parts.
    """

    peak_bytes: int
    cold_ns: int | None = None
    load_ns: int | None = None
    first_ns: int | None = None
    steady_ns: int | None = None
    resident_bytes: int | None = None
    rest_bytes: int | None = None
    proportional_bytes: int | None = None


class Energy(Strict, frozen=True, kw_only=True):
    """What the machine used while a variant ran without a pause.

    Attributes:
        joules: a request, with all that the machine uses anyway.
        watts: meanwhile.
        idle_watts: at rest, right before.
        source: what told it.
    """

    joules: float
    watts: float
    idle_watts: float
    source: str


class Op(Strict, frozen=True, kw_only=True):
    """One operator of the graph that an engine really runs.

    Attributes:
        layer: of the model: ``embedding``, ``attention 0``, ``ffn 0``, …, ``head``.
        name: of the node.
        kind: operator type.
        us: mean time of a request, in microseconds, by the engine's own profiler.
        macs: multiply-adds of a request.
        bytes: what it reads and writes, if nothing were in a cache.
        int8: whether its products are of 8-bit integers.
    """

    layer: str
    name: str
    kind: str
    us: float
    macs: int
    bytes: int
    int8: bool


class Peak(Strict, frozen=True, kw_only=True):
    """What a machine can do at most.

    Attributes:
        fp32_macs: multiply-adds a second of a large matrix product, of float32.
        int8_macs: of uint8 by int8.
        bytes: read and written a second by a copy of what fits into no cache.
        threads: that were used.
    """

    fp32_macs: float
    int8_macs: float
    bytes: float
    threads: int


class Run(Strict, frozen=True, kw_only=True):
    """One measured series of a variant. Raw samples; statistics are derived, never stored.

    Attributes:
        engine: ``onnxruntime``, ``litert``, … or ``pytorch`` for the original.
        precision: of the variant.
        tokens: length of every input; 0 when lengths differ, see ``lengths``.
        batch: rows a request.
        threads: the engine was given.
        warmup: requests that were run first and not counted.
        samples_ns: latency of each request.
        scenario: how requests came: ``quick`` is in turn with the other variants.
        provider: what the engine ran on, as it says itself.
        lengths: tokens of each request, when they differ.
        at_ns: when each request came, after the first one; absent where they were measured in turn.
        every: one request of so many was kept; the others came between them.
        harness_ns: median of an engine that answers at once, measured in turn with the others: what of each sample is
            the measurement itself. It is subtracted nowhere.
        before: the machine before the first sample; of a profile of version 1, before its first run.
        after: and after the last one.
        during: the machine meanwhile, of a sustained run.
        fresh: of a fresh process, if it was measured.
        ops: where a request spends its time, if it was asked for.
        energy: of a request, if it was measured.
        verdict: of MLPerf's load generator, where it made the requests: ``VALID``, or ``INVALID`` with its reasons.
        loadgen_ns: the percentile that its scenario is judged by, by its own clock.
    """

    engine: str
    precision: str
    tokens: int
    batch: int
    threads: int
    warmup: int
    samples_ns: tuple[int, ...]
    scenario: Scenario = "quick"
    provider: str = ""
    lengths: tuple[int, ...] = ()
    at_ns: tuple[int, ...] = ()
    every: int = 1
    harness_ns: int | None = None
    before: Conditions = Conditions()
    after: Conditions = Conditions()
    during: tuple[Conditions, ...] = ()
    fresh: Fresh | None = None
    ops: tuple[Op, ...] = ()
    energy: Energy | None = None
    verdict: str = ""
    loadgen_ns: int | None = None

    @property
    def name(self) -> str:
        """The variant as people call it."""
        return f"{self.engine} {self.precision}"

    @property
    def peak_rss_bytes(self) -> int:
        """Highest resident memory of a fresh process that only loads and runs this variant; 0 when not measured."""
        return self.fresh.peak_bytes if self.fresh else 0


class Profile(Strict, frozen=True, kw_only=True):
    """Runs of one bundle on one machine.

    Attributes:
        schema: the version of this format.
        edgelm: the version that measured.
        machine: where.
        runs: what was measured.
        peak: what the machine can do at most, if it was asked for.
    """

    schema: Literal["edgelm.profile/2"]
    edgelm: str
    machine: Machine
    runs: tuple[Run, ...]
    peak: Peak | None = None

    @property
    def load_start(self) -> float | None:
        """1-minute load average before the first sample, if it is known."""
        return self.runs[0].before.load if self.runs else None

    @property
    def load_end(self) -> float | None:
        """And after the last one."""
        return self.runs[-1].after.load if self.runs else None


class _FirstRun(Strict, frozen=True, kw_only=True):
    engine: str
    precision: str
    tokens: int
    batch: int
    threads: int
    warmup: int
    samples_ns: tuple[int, ...]
    peak_rss_bytes: int


class _First(Strict, frozen=True, kw_only=True):
    """A profile of version 1: conditions were two load averages of the whole."""

    schema: Literal["edgelm.profile/1"]
    edgelm: str
    machine: Machine
    runs: tuple[_FirstRun, ...]
    load_start: float
    load_end: float


class _Head(msgspec.Struct):
    """What tells one version from another, and from what ``--json`` writes."""

    schema: str = ""
    load: Any = None


def read(raw: bytes, *, source: str, error: type[EdgelmError]) -> Profile:
    """Read a profile of this version or of version 1.

    Args:
        raw: UTF-8 JSON.
        source: named in the error.
        error: the type of error to raise.

    Raises:
        EdgelmError: of type ``error``: it is no profile, or one of another version.
    """
    try:
        head = msgspec.json.decode(raw, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise error(f"{source}: expected a profile as 'edgelm profile --save' writes it: {exc}") from exc
    if head.load is not None:
        raise error(f"{source}: expected a profile as 'edgelm profile --save' writes it, found what --json writes")
    if head.schema == "edgelm.profile/2":
        return decode(raw, Profile, source=source, error=error)
    if head.schema != "edgelm.profile/1":
        found = head.schema or "no schema"
        raise error(f"{source}: expected edgelm.profile/1 or edgelm.profile/2, found {found}; update edgelm")
    old = decode(raw, _First, source=source, error=error)
    runs = tuple(_upgraded(run, old) for run in old.runs)
    return Profile(schema="edgelm.profile/2", edgelm=old.edgelm, machine=old.machine, runs=runs)


def _upgraded(run: _FirstRun, profile: _First) -> Run:
    return Run(
        engine=run.engine,
        precision=run.precision,
        tokens=run.tokens,
        batch=run.batch,
        threads=run.threads,
        warmup=run.warmup,
        samples_ns=run.samples_ns,
        before=Conditions(load=profile.load_start),
        after=Conditions(load=profile.load_end),
        fresh=Fresh(peak_bytes=run.peak_rss_bytes) if run.peak_rss_bytes else None,
    )
