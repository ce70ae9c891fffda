"""The numbers as tables of words: the report, the terminal and the README show the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgelm.manifest import Manifest, Score
from edgelm.profile import stats
from edgelm.runs import Profile, Run

__all__ = [
    "NONE",
    "ORIGINAL",
    "SIZES",
    "TIMES",
    "Table",
    "latency",
    "length_words",
    "markdown",
    "milliseconds",
    "overview",
    "parity",
    "percent",
    "reference_length",
    "size",
    "sizes",
]

ORIGINAL = "pytorch"
"""The engine of the original in a profile."""

SIZES = ("download", "disk", "memory")
"""The columns of the three sizes."""

NONE = "\N{EN DASH}"
"""What stands in a cell without a value."""

TIMES = "\N{MULTIPLICATION SIGN}"
"""What follows a factor."""


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

    def without(self, *columns: str) -> Table:
        """The same table with some columns left out."""
        kept = [index for index, column in enumerate(self.columns) if column not in columns]
        rows = tuple(tuple(row[index] for index in kept) for row in self.rows)
        return Table(self.title, tuple(self.columns[index] for index in kept), rows)


def overview(manifest: Manifest, profile: Profile, downloads: Mapping[str, int], tokens: int | None = None) -> Table:
    """The original and each variant: agreement, task metric, latency at one length, and the three sizes.

    Args:
        manifest: of the bundle.
        profile: of the bundle.
        downloads: bytes that each file takes in the bundle, by name.
        tokens: the length; ``reference_length`` when not given.
    """
    tokens = tokens or reference_length(profile)
    runs = _runs(profile, tokens)
    original = runs.get((ORIGINAL, "fp32"))
    base = manifest.baseline
    cells = [(NONE, _score(base.score), *_speed(original, original))]
    for variant in manifest.variants:
        speed = _speed(runs.get((variant.engine, variant.precision)), original)
        cells.append((percent(variant.agreement), _score(variant.score), *speed))
    three = sizes(manifest, profile, downloads, tokens).rows
    rows = tuple((*row[:2], *own, *row[2:]) for row, own in zip(three, cells, strict=True))
    metric = base.score.metric if base.score else "score"
    columns = ("engine", "precision", "agreement", metric, "p50 ms", "p90 ms", "faster", *SIZES)
    return Table(length_words(tokens), columns, rows)


def sizes(
    manifest: Manifest, profile: Profile | None, downloads: Mapping[str, int], tokens: int | None = None
) -> Table:
    """The original and each variant: what it takes of the bundle, on disk when unpacked, and in memory.

    Args:
        manifest: of the bundle.
        profile: of the bundle; without it no memory is known.
        downloads: bytes that each file takes in the bundle, by name.
        tokens: the length at which memory was measured; ``reference_length`` when not given.
    """
    runs = _runs(profile, tokens or reference_length(profile)) if profile else {}
    base, weights = manifest.baseline, size(manifest.baseline.bytes)
    rows = [("original", f"{base.engine} {base.precision}", weights, weights, _memory(runs.get((ORIGINAL, "fp32"))))]
    for variant in manifest.variants:
        two = (size(variant.taken(downloads)), size(variant.bytes))
        rows.append((variant.engine, variant.precision, *two, _memory(runs.get((variant.engine, variant.precision)))))
    title = "sizes: to download, on disk when unpacked, in memory at the peak"
    return Table(title, ("engine", "precision", *SIZES), tuple(rows))


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


def reference_length(profile: Profile) -> int:
    """The length whose latency stands for the others: 32 tokens if it was measured, else the middle one; 0 of none."""
    lengths = sorted({run.tokens for run in profile.runs})
    return 32 if 32 in lengths else lengths[len(lengths) // 2] if lengths else 0


def length_words(tokens: int) -> str:
    """A length as people say it: 0 stands for lengths that differ."""
    return f"{tokens} tokens" if tokens else "lengths as drawn"


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


def _runs(profile: Profile, tokens: int) -> dict[tuple[str, str], Run]:
    """The runs at one length, by engine and precision."""
    return {(run.engine, run.precision): run for run in profile.runs if run.tokens == tokens}


def _speed(run: Run | None, original: Run | None) -> tuple[str, str, str]:
    """Median, 90th percentile, how many times faster than the original."""
    if run is None:
        return NONE, NONE, NONE
    p50, p90 = (stats.percentile_ms(run.samples_ns, percent) for percent in (50, 90))
    times = f"{stats.percentile_ms(original.samples_ns, 50) / p50:.1f}{TIMES}" if original else NONE
    return milliseconds(p50), milliseconds(p90), times


def _memory(run: Run | None) -> str:
    """Peak memory, or nothing when it was not measured."""
    return size(run.peak_rss_bytes) if run and run.peak_rss_bytes else NONE


def _score(score: Score | None) -> str:
    """A task metric with three digits."""
    return f"{score.value:.3f}" if score else NONE
