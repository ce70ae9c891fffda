"""The picture of a choice: what each variant costs against how good it is, and which of them nothing beats in both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl

from edgelm.manifest import Manifest, Variant
from edgelm.profile import stats, table
from edgelm.profile.report.charts import Series, series
from edgelm.profile.report.drawing import COLORS, FAINT, STYLE, blank, plain, svg
from edgelm.runs import Profile

__all__ = ["Point", "by_download", "by_latency", "chart", "front", "quality_words", "words"]

_LOWER_IS_BETTER = ("perplexity",)


@dataclass(frozen=True, slots=True)
class Point:
    """A variant, or the original.

    Attributes:
        look: how it is drawn, and what it is called.
        cost: milliseconds, or MB.
        low: lower end of the 95 % interval of the cost, where it was measured; else the cost.
        high: and its upper end.
        quality: as ``quality_words`` says.
        better: the same, turned so that more is better.
    """

    look: Series
    cost: float
    low: float
    high: float
    quality: float
    better: float


def by_latency(manifest: Manifest, profile: Profile) -> tuple[Point, ...]:
    """What was measured in turn, by its median at the reference length in milliseconds."""
    tokens, found = table.reference_length(profile), []
    for look in series(manifest):
        for run in look.runs(profile):
            if run.tokens == tokens and run.scenario == "quick":
                told = stats.summarize(run)
                found.append(_point(manifest, look, told.p50, told.low, told.high))
    return tuple(found)


def by_download(manifest: Manifest, downloads: Mapping[str, int]) -> tuple[Point, ...]:
    """Everything, by what it takes of the bundle in MB; of the original, its weights."""
    taken: dict[tuple[str, str], int] = {(one.engine, one.precision): one.taken(downloads) for one in manifest.variants}
    sizes = [taken.get((look.engine, look.precision), look.bytes) / 1e6 for look in series(manifest)]
    return tuple(_point(manifest, look, size, size, size) for look, size in zip(series(manifest), sizes, strict=True))


def front(points: Iterable[Point]) -> tuple[Point, ...]:
    """Those that no other is as good as at a lower cost, or better than at the same one; cheapest first."""
    found, best = list[Point](), float("-inf")
    for point in sorted(points, key=lambda one: (one.cost, -one.better)):
        alike = found and (point.cost, point.better) == (found[-1].cost, found[-1].better)
        if point.better > best or alike:
            found.append(point)
            best = point.better
    return tuple(found)


def chart(points: Sequence[Point], manifest: Manifest, name: str, across: str) -> str:
    """The points, a line along those that nothing beats, and the original's quality, as an ``<svg>`` element.

    Args:
        points: at least one.
        manifest: of the bundle.
        name: of the element.
        across: what the cost is.
    """
    best, (original, sign) = front(points), _quality(manifest, None)
    with mpl.rc_context(STYLE):
        figure, axes = blank(across, quality_words(manifest))
        axes.axhline(original, color=COLORS["var(--grey)"], linewidth=1.2, linestyle=":", zorder=1)
        steps = [one.cost for one in best], [one.quality for one in best]
        axes.step(*steps, where="post", color=FAINT, linewidth=1.2, zorder=1)
        for one in points:
            color = COLORS[one.look.color]
            axes.plot([one.low, one.high], [one.quality] * 2, color=color, alpha=0.45, zorder=2)
            inside = color if one in best else "none"
            axes.plot(one.cost, one.quality, color=color, marker=one.look.marker, markersize=8, mfc=inside, zorder=3)
        axes.set_xscale("log")
        axes.set_xlim(*_around([end for one in points for end in (one.low, one.high)]))
        plain(axes.xaxis)
        axes.margins(y=0.15)
        axes.ticklabel_format(axis="y", useOffset=False)
        if sign < 0:
            axes.invert_yaxis()
        return svg(figure, name)


def quality_words(manifest: Manifest) -> str:
    """What the quality is: the task's metric where everything has one, else agreement with the original."""
    score = manifest.baseline.score if _scored(manifest) else None
    if score is None:
        return "agreement with the original"
    return f"{score.metric.replace('_', ' ')}, {score.n} {'tokens' if score.metric == 'perplexity' else 'texts'}"


def words(points: Sequence[Point], unit: str) -> str:
    """The picture in words: what nothing beats, and what something does."""
    best = front(points)

    def listed(some: Iterable[Point]) -> str:
        told = [f"{one.look.label} ({table.milliseconds(one.cost)} {unit}, {one.quality:.4g})" for one in some]
        return "; ".join(told) or "none"

    rest = sorted((one for one in points if one not in best), key=lambda one: one.cost)
    return f"Beaten by none: {listed(best)}. Beaten by one that costs no more and is no worse: {listed(rest)}."


def _around(costs: Sequence[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis that have a mark at either end: the nearest of 1, 2, 5, 10, … with room beside."""
    marks = [digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5)]
    low, high = min(costs) / 1.08, max(costs) * 1.08
    return max((mark for mark in marks if mark <= low), default=low), min((m for m in marks if m >= high), default=high)


def _point(manifest: Manifest, look: Series, cost: float, low: float, high: float) -> Point:
    variant = next((v for v in manifest.variants if (v.engine, v.precision) == (look.engine, look.precision)), None)
    quality, sign = _quality(manifest, variant)
    return Point(look, cost, low, high, quality, sign * quality)


def _quality(manifest: Manifest, variant: Variant | None) -> tuple[float, float]:
    """Of a variant, or of the original; and 1 where more is better, else -1."""
    score = variant.score if variant is not None else manifest.baseline.score
    if score is None or not _scored(manifest):
        return (1.0 if variant is None else variant.agreement), 1.0
    return score.value, -1.0 if score.metric in _LOWER_IS_BETTER else 1.0


def _scored(manifest: Manifest) -> bool:
    return manifest.baseline.score is not None and all(one.score is not None for one in manifest.variants)
