"""Measuring a latency table: small random encoders are exported as any other, and timed.

A width's cost is a slope over layers: an encoder with ``STACK`` ordinary layers whose attention has so many heads and
whose FFNs are empty, less the same encoder with nothing at all, divided by ``STACK``. Each layer has its own weights,
and before each request the caches are filled with something else, as they are on a device that does other work too:
a small encoder in a loop would be measured with all of its weights in the fastest cache, where a whole one's are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from edgelm.compress.latency import Fixed, Kind, Point, Subject, Table, position_rows
from edgelm.devices.machine import machine
from edgelm.errors import DeviceUnavailable
from edgelm.exporters import Exporter, exporter
from edgelm.model import Encoder, EncoderConfig
from edgelm.profile.inputs import token_ids
from edgelm.profile.timing import interleaved
from edgelm.progress import Advance, Progress, silent
from edgelm.runtimes import Session, engine

__all__ = ["STACK", "cold_ms", "tabulate"]

STACK = 4
"""Ordinary layers of the encoders that are measured, besides an empty last one."""

SHARES = (1 / 12, 1 / 6, 1 / 3, 1 / 2, 3 / 4, 1.0)
"""Widths to measure, of the widest; between them, latency is taken as linear."""

VOCAB = 1000
_WARMUP, _COLD_BYTES = 3, 64 << 20


@dataclass(frozen=True)
class _Probe:
    """An encoder to measure: ``units`` of one kind in each layer of that kind, and nothing of any other.

    With units of the last layer's, ``ordinary`` empty layers stand before it.
    """

    kind: Kind
    units: int
    ordinary: int = STACK

    def config(self, subject: Subject, vocab: int = VOCAB) -> EncoderConfig:
        last = self.kind.startswith("last_")
        units = (0,) * self.ordinary + (self.units,) if last else (self.units,) * self.ordinary + (0,)
        attention = self.kind.endswith("attention")
        none = (0,) * len(units)
        return EncoderConfig(
            vocab_size=vocab,
            dim=subject.dim,
            head_dim=subject.head_dim,
            heads=units if attention else none,
            ffn=none if attention else units,
            max_positions=max(subject.lengths),
            labels=tuple(str(i) for i in range(subject.labels)),
        )


@dataclass(frozen=True)
class _Cost:
    """Of a probe as a whole: milliseconds at each length, float64, and bytes of its artifact."""

    ms: np.ndarray[tuple[int], np.dtype[np.float64]]
    bytes: float


def tabulate(
    subject: Subject,
    *,
    shares: Sequence[float] = SHARES,
    count: int = 60,
    progress: Progress = silent,
) -> Table:
    """Measure a table on this machine: some minutes, most of them to export.

    Args:
        subject: what to measure.
        shares: widths, of the widest.
        count: samples of each encoder at each length.
        progress: shown while it runs.

    Raises:
        ExportFailed: a converter failed.
        DeviceUnavailable: the engine cannot run here.
    """
    runs_on = engine(subject.engine)
    lacks = runs_on.missing()
    if lacks:
        raise DeviceUnavailable(lacks)
    probes, form = _probes(subject, shares), exporter(runs_on.FORMAT)
    artifacts = dict[_Probe, bytes]()
    with progress(f"export {len(probes)} probes", len(probes)) as advance:
        for probe in probes:
            artifacts[probe] = _exported(form, subject, probe.config(subject), subject.lengths)
            advance(1)
    shortest = [
        len(_exported(form, subject, _Probe("ffn", 0, 1).config(subject, rows), subject.lengths[:1]))
        for rows in (VOCAB, 2 * VOCAB)
    ]
    found = _timed(subject, artifacts, count, progress)
    return _solved(subject, found, (shortest[1] - shortest[0]) / VOCAB)


def cold_ms(
    sessions: Mapping[str, Session],
    tokens: int,
    *,
    vocab: int,
    count: int = 60,
    progress: Advance | None = None,
) -> dict[str, float]:
    """Latency of a request that finds the caches filled with something else: the median of the faster half.

    Args:
        sessions: by name; they take turns.
        tokens: length of the request.
        vocab: token ids are below this.
        count: samples of each.
        progress: called with the number of sessions done since the last call.

    Returns:
        Milliseconds, by name.
    """
    other = np.ones(_COLD_BYTES // 8)
    ids, mask = token_ids(tokens, batch=1, vocab=vocab)
    requests: dict[tuple[str, str], Callable[[], object]] = {}
    for name, session in sessions.items():
        requests["other work", name] = other.sum
        requests["request", name] = _request(session, ids, mask)
    samples = interleaved(requests, warmup=_WARMUP, seconds=0.0, min_count=count)
    if progress:
        progress(len(sessions))
    return {name: float(np.percentile(samples["request", name], 25)) / 1e6 for name in sessions}


def _request(session: Session, ids: np.ndarray, mask: np.ndarray) -> Callable[[], object]:
    return lambda: session.run(ids, mask)


def _probes(subject: Subject, shares: Sequence[float]) -> list[_Probe]:
    most: dict[Kind, int] = {"attention": subject.heads, "ffn": subject.ffn}
    most |= {"last_attention": subject.heads, "last_ffn": subject.ffn}
    found = [_Probe("attention", 0), _Probe("attention", 0, 1)]
    for kind, units in most.items():
        widths = sorted({max(1, round(units * share)) for share in shares})
        found += [_Probe(kind, width, 1 if kind.startswith("last_") else STACK) for width in widths]
    return found


def _exported(form: Exporter, subject: Subject, config: EncoderConfig, lengths: Sequence[int]) -> bytes:
    torch.manual_seed(0)
    made = Encoder(config).eval()
    return form.export(made, [subject.precision], lengths, tell=lambda report: None)[subject.precision]


def _timed(subject: Subject, artifacts: Mapping[_Probe, bytes], count: int, progress: Progress) -> dict[_Probe, _Cost]:
    with ExitStack() as stack:
        sessions = dict[str, Session]()
        for probe, artifact in artifacts.items():
            sessions[str(probe)] = engine(subject.engine).load(artifact, threads=subject.threads)
            stack.callback(sessions[str(probe)].close)
        advance = stack.enter_context(progress("time the probes", len(subject.lengths) * len(sessions)))
        columns = [cold_ms(sessions, tokens, vocab=VOCAB, count=count, progress=advance) for tokens in subject.lengths]
    return {
        probe: _Cost(np.array([column[str(probe)] for column in columns]), len(artifact))
        for probe, artifact in artifacts.items()
    }


def _solved(subject: Subject, found: Mapping[_Probe, _Cost], row_bytes: float) -> Table:
    """Costs of sublayers from costs of encoders. An empty ordinary layer counts half as attention, half as FFN."""
    many, one = found[_Probe("attention", 0)], found[_Probe("attention", 0, 1)]
    layer = _Cost((many.ms - one.ms) / (STACK - 1), (many.bytes - one.bytes) / (STACK - 1))

    def points(kind: Kind) -> tuple[Point, ...]:
        last = kind.startswith("last_")
        base, layers, empty = (one, 1, 0.0) if last else (many, STACK, 0.5)
        made = [Point(units=0, ms=tuple((empty * layer.ms).tolist()), bytes=empty * layer.bytes)]
        for probe, cost in sorted(found.items(), key=lambda item: item[0].units):
            if probe.kind == kind and probe.units:
                ms = (cost.ms - base.ms) / layers + empty * layer.ms
                made.append(
                    Point(
                        units=probe.units,
                        ms=tuple(ms.tolist()),
                        bytes=(cost.bytes - base.bytes) / layers + empty * layer.bytes,
                    )
                )
        return tuple(made)

    fixed = Fixed(
        ms=tuple((one.ms - layer.ms).tolist()),
        bytes=one.bytes - layer.bytes,
        vocab=VOCAB,
        positions=position_rows(subject.engine, subject.lengths),
        row_bytes=row_bytes,
    )
    return Table(
        schema="edgelm.latency/1",
        machine=machine(),
        subject=subject,
        fixed=fixed,
        attention=points("attention"),
        ffn=points("ffn"),
        last_attention=points("last_attention"),
        last_ffn=points("last_ffn"),
    )
