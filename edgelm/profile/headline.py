"""The headline of a report: the fastest variant beside the original, a card for each question people ask first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgelm.manifest import Manifest, Variant
from edgelm.profile import stats, table
from edgelm.runs import Profile, Run

__all__ = ["Card", "cards", "fastest"]


@dataclass(frozen=True, slots=True)
class Card:
    """One figure.

    Attributes:
        name: what it is.
        value: of the variant, with its unit.
        beside: of the original, and how they compare.
    """

    name: str
    value: str
    beside: str


def fastest(manifest: Manifest, profile: Profile) -> Variant:
    """The variant with the lowest median at the reference length; the smallest one if none was measured."""
    runs = _runs(profile)
    measured = [variant for variant in manifest.variants if (variant.engine, variant.precision) in runs]
    if not measured:
        return min(manifest.variants, key=lambda variant: variant.bytes)
    return min(measured, key=lambda variant: _p50(runs[variant.engine, variant.precision]))


def cards(manifest: Manifest, profile: Profile, downloads: Mapping[str, int]) -> tuple[Card, ...]:
    """Latency, download and disk, task metric, labels unchanged, memory: those that are known."""
    variant, runs = fastest(manifest, profile), _runs(profile)
    run = runs.get((variant.engine, variant.precision))
    original = next((run for run in runs.values() if run.engine == table.ORIGINAL), None)
    return tuple(
        [
            *_latency(run, original),
            _download(manifest, variant, variant.taken(downloads)),
            *_score(manifest, variant),
            Card("Same label", table.percent(variant.agreement), "as the original gives, on the dev texts"),
            *_memory(run, original),
        ]
    )


def _latency(run: Run | None, original: Run | None) -> Iterator[Card]:
    if run is not None and run.scenario != "offline":  # there it is the time of waiting for all the others
        time, beside = _p50(run), table.length_words(run.tokens)
        if original is not None:
            before = _p50(original)
            beside = f"{before / time:.1f}{table.TIMES} faster than {table.milliseconds(before)} ms"
        yield Card("Median latency", f"{table.milliseconds(time)} ms", beside)


def _download(manifest: Manifest, variant: Variant, download: int) -> Card:
    before = manifest.baseline.bytes
    beside = f"{before / download:.1f}{table.TIMES} smaller than {table.size(before)}"
    return Card("Download", table.size(download), f"{beside}; {table.size(variant.bytes)} on disk")


def _score(manifest: Manifest, variant: Variant) -> Iterator[Card]:
    score, before = variant.score, manifest.baseline.score
    if score is not None:
        beside = f"on {score.n} texts"
        if before is not None:
            points = (score.value - before.value) * 100
            change = f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"
            beside = f"{change if abs(points) >= 0.05 else 'the same as'} the original's {before.value:.3f}"
        yield Card(score.metric.capitalize(), f"{score.value:.3f}", beside)


def _memory(run: Run | None, original: Run | None) -> Iterator[Card]:
    if run is not None and run.peak_rss_bytes:
        beside = "a fresh process, at its peak"
        if original is not None and original.peak_rss_bytes:
            ratio = original.peak_rss_bytes / run.peak_rss_bytes
            beside = f"{ratio:.1f}{table.TIMES} less than {table.size(original.peak_rss_bytes)}"
        yield Card("Peak memory", table.size(run.peak_rss_bytes), beside)


def _runs(profile: Profile) -> dict[tuple[str, str], Run]:
    """The runs at the reference length."""
    tokens = table.reference_length(profile)
    return {(run.engine, run.precision): run for run in profile.runs if run.tokens == tokens}


def _p50(run: Run) -> float:
    return stats.percentile_ms(run.samples_ns, 50)
