"""A latency table as measuring would make one, with round numbers: of the tiny encoders, on this machine."""

from __future__ import annotations

import tiny

from edgelm.compress.latency import Fixed, Point, Subject, Table
from edgelm.devices.machine import machine

LENGTHS = (8, 16, 32)


def made(engine: str = "onnxruntime") -> Table:
    """Each head costs a millisecond at 8 tokens, each neuron a tenth, each layer another; a third in the last layer."""

    def points(most: int, each: float, size: float, empty: float) -> tuple[Point, ...]:
        return tuple(
            Point(units=n, ms=tuple((empty + each * n) * t / 8 for t in LENGTHS), bytes=100 + size * n)
            for n in (0, most // 4, most // 2, most)
        )

    subject = Subject(
        engine=engine,
        precision="int8-dynamic",
        threads=1,
        dim=32,
        head_dim=8,
        heads=4,
        ffn=48,
        labels=len(tiny.LABELS),
        lengths=LENGTHS,
    )
    return Table(
        schema="edgelm.latency/1",
        machine=machine(),
        subject=subject,
        fixed=Fixed(ms=(1.0, 2.0, 4.0), bytes=5000, vocab=100, positions=64, row_bytes=36),
        attention=points(4, 1.0, 1024, 0.1),
        ffn=points(48, 0.1, 64, 0.1),
        last_attention=points(4, 0.3, 1024, 0.0),
        last_ffn=points(48, 0.03, 64, 0.0),
    )
