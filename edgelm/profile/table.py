"""The numbers as tables of words: the report, the terminal and the README show the same ones."""

from __future__ import annotations

from dataclasses import dataclass

from edgelm.manifest import Manifest, Profile, Run, Score
from edgelm.profile import stats

__all__ = [
    "NONE",
    "ORIGINAL",
    "TIMES",
    "Table",
    "latency",
    "markdown",
    "milliseconds",
    "overview",
    "parity",
    "percent",
    "reference_length",
    "size",
    "warnings",
]

ORIGINAL = "pytorch"
"""The engine of the original in a profile."""

NONE = "\N{EN DASH}"
"""What stands in a cell without a value."""

TIMES = "\N{MULTIPLICATION SIGN}"
"""What follows a factor."""

_FEW = 100
_BUSY = 0.5


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as words.

    Attributes:
        title: what it shows.
        columns: headings; the first two are of words, the others of numbers.
        rows: a cell for each column.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def overview(manifest: Manifest, profile: Profile, tokens: int | None = None) -> Table:
    """The original and each variant: size, agreement, task metric, latency at one length, memory.

    Args:
        manifest: of the bundle.
        profile: of the bundle.
        tokens: the length; ``reference_length`` when not given.
    """
    tokens = tokens or reference_length(profile)
    runs = {(run.engine, run.precision): run for run in profile.runs if run.tokens == tokens}
    original = next((run for run in runs.values() if run.engine == ORIGINAL), None)
    base = manifest.baseline
    rows = [("original", f"{ORIGINAL} fp32", size(base.bytes), NONE, _score(base.score), *_speed(original, original))]
    rows += [
        (
            variant.engine,
            variant.precision,
            size(variant.bytes),
            percent(variant.agreement),
            _score(variant.score),
            *_speed(runs.get((variant.engine, variant.precision)), original),
        )
        for variant in manifest.variants
    ]
    metric = base.score.metric if base.score else "score"
    columns = ("engine", "precision", "size", "agreement", metric, "p50 ms", "p90 ms", "faster", "memory")
    return Table(f"{tokens} tokens", columns, tuple(rows))


def latency(profile: Profile) -> Table:
    """Every run: percentiles, the 95 % interval of the median, how many samples, peak memory."""
    rows = []
    for run in profile.runs:
        found = stats.summarize(run)
        times = (milliseconds(time) for time in (found.p50, found.p90, found.p99))
        interval = f"{milliseconds(found.low)} to {milliseconds(found.high)}"
        fixed = (run.engine, run.precision, str(run.tokens))
        rows.append((*fixed, *times, interval, str(found.n), _memory(run)))
    columns = ("engine", "precision", "tokens", "p50 ms", "p90 ms", "p99 ms", "median, 95 %", "n", "memory")
    return Table("every run", columns, tuple(rows))


def parity(manifest: Manifest) -> Table:
    """How close each variant is to the module that it was exported from."""
    rows = [
        (
            variant.engine,
            variant.precision,
            str(variant.parity.rows),
            percent(variant.parity.agreement),
            f"{variant.parity.max_abs_diff:.2g}",
            f"{variant.parity.kl:.2g}",
            str(variant.parity.hostile_rows),
            f"{variant.parity.hostile_max_abs_diff:.2g}",
        )
        for variant in manifest.variants
    ]
    columns = (
        "engine",
        "precision",
        "texts",
        "same label",
        "max diff",
        "mean KL",
        "hostile",
        "max diff",
    )
    title = "parity with the exported module: largest difference of a logit, KL in nats, the same on hostile input"
    return Table(title, columns, tuple(rows))


def warnings(profile: Profile) -> tuple[str, ...]:
    """What a reader should know before trusting the latencies: scatter, few samples, a busy machine."""
    found = []
    unsteady = _which([run for run in profile.runs if stats.unstable(run)])
    if unsteady:
        found.append(f"These may be unstable, their standard deviation is 10 % of the mean or more: {unsteady}.")
    few = _which([run for run in profile.runs if len(run.samples_ns) < _FEW])
    if few:
        found.append(f"These have fewer than {_FEW} samples, so that p99 is their maximum: {few}.")
    if profile.load_start > _BUSY * profile.machine.cores:
        found.append(f"The machine was busy when measuring began: its load average was {profile.load_start:.1f}.")
    return tuple(found)


def reference_length(profile: Profile) -> int:
    """The length whose latency stands for the others: 32 tokens if it was measured, else the middle one; 0 of none."""
    lengths = sorted({run.tokens for run in profile.runs})
    return 32 if 32 in lengths else lengths[len(lengths) // 2] if lengths else 0


def markdown(table: Table) -> str:
    """A table as GitHub shows it, the title not included."""
    rule = ["---" if index < 2 else "---:" for index in range(len(table.columns))]
    lines = [table.columns, tuple(rule), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def milliseconds(time: float) -> str:
    """A time of this many milliseconds with about three digits, without the unit."""
    return f"{time:.{2 if time < 10 else 1 if time < 100 else 0}f}"


def percent(share: float) -> str:
    """A share in per cent with three digits: 100 only when it is all of them."""
    return "100 %" if share == 1.0 else f"{min(share * 100, 99.9):.3g} %"


def size(count: int) -> str:
    """Bytes in thousands, millions or thousand millions."""
    if count < 1_000_000:
        return f"{count / 1e3:.1f} kB"
    if count >= 1_000_000_000:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.{1 if count < 100_000_000 else 0}f} MB"


def _speed(run: Run | None, original: Run | None) -> tuple[str, str, str, str]:
    """Median, 90th percentile, how many times faster than the original, memory."""
    if run is None:
        return NONE, NONE, NONE, NONE
    p50, p90 = (stats.percentile_ms(run.samples_ns, percent) for percent in (50, 90))
    times = f"{stats.percentile_ms(original.samples_ns, 50) / p50:.1f}{TIMES}" if original else NONE
    return milliseconds(p50), milliseconds(p90), times, _memory(run)


def _memory(run: Run) -> str:
    """Peak memory, or nothing when it was not measured."""
    return size(run.peak_rss_bytes) if run.peak_rss_bytes else NONE


def _score(score: Score | None) -> str:
    """A task metric with three digits."""
    return f"{score.value:.3f}" if score else NONE


def _which(runs: list[Run]) -> str:
    """Variants, each with the lengths of its runs."""
    lengths: dict[str, list[str]] = {}
    for run in runs:
        lengths.setdefault(f"{run.engine} {run.precision}", []).append(str(run.tokens))
    return "; ".join(f"{name} at {', '.join(tokens)} tokens" for name, tokens in lengths.items())
