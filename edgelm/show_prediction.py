"""What is expected on a device, for people: nothing of it was measured there, and every line says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelm import console
from edgelm.profile.table import Table, milliseconds

if TYPE_CHECKING:
    from edgelm.roofline import Prediction

__all__ = ["expected", "predicted"]


def expected(found: Prediction) -> Table:
    """A row for each variant and length that can be told of."""
    rows = [
        (one.engine, one.precision, str(one.tokens), *map(milliseconds, (one.p50_ms, one.low_ms, one.high_ms)))
        for one in found.expected
    ]
    threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
    title = f"predicted on {found.device}, {threads}: from the roofline, not measured"
    return Table(title, ("engine", "precision", "tokens", "p50 ms", "from", "to"), tuple(rows))


def predicted(found: Prediction) -> None:
    """That, and what the figures come from; or why there are none."""
    if found.expected:
        made = expected(found)
        console.out.print()
        console.out.print(console.table(made.title, made.columns, made.rows))
        console.out.print(found.basis, soft_wrap=True)
    for reason in found.missing:
        console.out.print(f"No latency is predicted on {found.device}: {reason}.", soft_wrap=True)
