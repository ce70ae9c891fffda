"""Where a request spends its time, and what energy it takes, as tables of words."""

from __future__ import annotations

from edgelm.profile import stats
from edgelm.profile.layers import by_layer
from edgelm.profile.table import NONE, Table, milliseconds, percent, size
from edgelm.runs import Peak, Profile, Run

__all__ = ["energy", "layers", "pieces", "roofline"]


def layers(run: Run, peak: Peak | None) -> Table:
    """A run's layers: time, share, work, and what each reaches of the roof over it."""
    rows = []
    for one in by_layer(run, peak):
        speed = f"{one.macs / one.us / 1e3:.3g}" if one.macs and one.us else NONE
        roof = f"{one.roof:.0%}".replace("%", " %") if one.roof is not None else NONE
        work = (f"{one.macs / 1e6:.3g}", size(one.bytes), speed)
        rows.append((one.name, one.bound or NONE, f"{one.us:.0f}", percent(one.share), *work, roof))
    columns = ("layer", "bound by", "µs", "of the time", "million MACs", "bytes", "GMAC/s", "of the roof")
    return Table(f"{run.name} at {run.tokens} tokens, layer by layer", columns, tuple(rows))


def roofline(peak: Peak) -> str:
    """What the roof is made of, in one sentence."""
    fp32, int8, moved = peak.fp32_macs / 1e9, peak.int8_macs / 1e9, peak.bytes / 1e9
    threads = f"{peak.threads} thread{'s' if peak.threads > 1 else ''}"
    return (
        f"The roof: {fp32:.3g} GMAC/s in fp32 and {int8:.3g} in int8, measured on matrices of 512 by "
        f"512 with ONNX Runtime, and {moved:.3g} GB/s by a copy, with {threads}."
    )


def pieces(run: Run) -> str:
    """What the pieces of a LiteRT graph took beside a request, in one sentence; empty of a run without them."""
    if run.engine != "litert" or not run.ops:
        return ""
    together, whole = sum(op.us for op in run.ops) / 1e3, stats.percentile_ms(run.samples_ns, 50)
    return (
        f"{run.name}: its graph was timed in {len(run.ops)} pieces, which took {milliseconds(together)} ms together; "
        f"a request takes {milliseconds(whole)} ms."
    )


def energy(profile: Profile) -> Table:
    """Energy of a request of each variant that was measured."""
    rows = []
    for run in profile.runs:
        if run.energy is not None:
            found = run.energy
            joules = f"{found.joules * 1e3:.3g}"
            rows.append(
                (run.engine, run.precision, str(run.tokens), joules, f"{found.watts:.2f}", f"{found.idle_watts:.2f}")
            )
    source = next((run.energy.source for run in profile.runs if run.energy), "")
    return Table(f"energy, by {source}", ("engine", "precision", "tokens", "mJ", "watts", "idle watts"), tuple(rows))
