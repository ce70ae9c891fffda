"""The numbers of scenarios, of sustained runs and of fresh processes as tables of words."""

from __future__ import annotations

from collections.abc import Iterator

from edgelm.profile import stats
from edgelm.profile.scenarios import throughput
from edgelm.profile.sustained import Window, windows
from edgelm.profile.table import NONE, Table, milliseconds, reference_length, size
from edgelm.runs import Fresh, Profile, Run

__all__ = ["headline", "memories", "scenarios", "starts", "sustained"]


def scenarios(profile: Profile) -> Table:
    """Every run under a load: percentiles, answers a second, and what MLPerf's load generator says of it."""
    rows = []
    for run in profile.runs:
        rate = throughput(run)
        times = (milliseconds(stats.percentile_ms(run.samples_ns, percent)) for percent in stats.PERCENTILES)
        lengths = str(run.tokens) if run.tokens else f"{min(run.lengths)}-{max(run.lengths)}"
        judged = f" {milliseconds(run.loadgen_ns / 1e6)}" if run.loadgen_ns else ""
        verdict = run.verdict.split(" ")[0].lower() + judged
        told = (str(len(run.samples_ns)), f"{rate:.4g}" if rate else NONE, verdict or NONE)
        rows.append((run.engine, run.precision, lengths, *times, *told))
    kinds = ", ".join(sorted({run.scenario for run in profile.runs}))
    columns = ("engine", "precision", "tokens", "p50 ms", "p90 ms", "p99 ms", "n", "a second", "LoadGen")
    return Table(f"requests as they come: {kinds}", columns, tuple(rows))


def sustained(run: Run) -> Table:
    """A sustained run minute by minute."""
    rows = tuple(_row(one) for one in windows(run))
    columns = ("from", "throttled", "p50 ms", "p99 ms", "n", "MHz", "°C")
    return Table(f"{run.name} at {run.tokens} tokens, without a pause", columns, rows)


def headline(run: Run) -> str:
    """The first minute of a sustained run beside its last, in one sentence."""
    found = windows(run)
    first, last = found[0], found[-1]
    change = 100 * (last.p50 / first.p50 - 1)
    text = f"Median {milliseconds(first.p50)} ms in the first part and {milliseconds(last.p50)} ms in the last"
    marked = sum(bool(one.throttled) for one in found)
    return f"{text} ({change:+.1f} %); {marked or 'none'} of {len(found)} marked as throttled."


def starts(profile: Profile) -> Table:
    """Fresh processes: how long from their start to the first answer, at the length that stands for the others."""
    rows = [
        (*name, _ms(found.cold_ns), _ms(found.load_ns), _ms(found.first_ns), _ms(found.steady_ns))
        for *name, found in _fresh(profile)
    ]
    columns = ("engine", "precision", "start to answer", "of it loading", "of it the request", "then, a request")
    return Table("a fresh process, in milliseconds", columns, tuple(rows))


def memories(profile: Profile) -> Table:
    """Fresh processes: what memory they hold, at the length that stands for the others."""
    rows = [
        (
            *name,
            *(
                NONE if count is None else size(count)
                for count in (found.peak_bytes, found.resident_bytes, found.rest_bytes, found.proportional_bytes)
            ),
        )
        for *name, found in _fresh(profile)
    ]
    columns = ("engine", "precision", "peak", "resident", "at rest", "proportional")
    return Table("memory of a fresh process", columns, tuple(rows))


def _fresh(profile: Profile) -> Iterator[tuple[str, str, Fresh]]:
    """Engine, precision and what a fresh process told, of the runs that have all of it."""
    tokens = reference_length(profile)
    for run in profile.runs:
        if run.fresh is not None and run.fresh.cold_ns is not None and run.tokens == tokens:
            yield run.engine, run.precision, run.fresh


def _row(one: Window) -> tuple[str, ...]:
    facts = (f"{one.mhz:.0f}" if one.mhz else NONE, f"{one.celsius:.0f}" if one.celsius is not None else NONE)
    begin = f"{one.begin_s / 60:.3g} min"
    return (begin, one.throttled or NONE, milliseconds(one.p50), milliseconds(one.p99), str(one.n), *facts)


def _ms(time_ns: int | None) -> str:
    return NONE if time_ns is None else milliseconds(time_ns / 1e6)
