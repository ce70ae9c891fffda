"""Charts of a profile, each as an ``<svg>`` element."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from edgelm.manifest import Manifest
from edgelm.profile import stats
from edgelm.profile.layers import by_layer
from edgelm.profile.report.drawing import COLORS, FAINT, STYLE, blank, plain, svg
from edgelm.profile.sustained import windows
from edgelm.profile.table import ORIGINAL
from edgelm.runs import Profile, Run

__all__ = ["Series", "by_length", "distribution", "latency", "layers", "memory", "over_time", "series"]

_MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚"}
_POINTS = 200  # of a distribution: a chart has no room for more


@dataclass(frozen=True, slots=True)
class Series:
    """How a variant, or the original, looks in every chart.

    Attributes:
        engine: of its runs.
        precision: of its runs.
        color: a CSS variable of the page.
        marker: as matplotlib names it.
        glyph: the same marker as a character, for the legend: nothing is known by its colour alone.
        bytes: its size.
    """

    engine: str
    precision: str
    color: str
    marker: str
    glyph: str
    bytes: int

    @property
    def label(self) -> str:
        """What it is called."""
        return "original, PyTorch" if self.engine == ORIGINAL else f"{self.engine} {self.precision}"

    def runs(self, profile: Profile) -> list[Run]:
        """Its runs, shortest length first."""
        own = [run for run in profile.runs if (run.engine, run.precision) == (self.engine, self.precision)]
        return sorted(own, key=lambda run: run.tokens)


def series(manifest: Manifest) -> tuple[Series, ...]:
    """The original in grey, then each variant in a colour of its own."""
    found = [(ORIGINAL, "fp32", manifest.baseline.bytes)]
    found += [(variant.engine, variant.precision, variant.bytes) for variant in manifest.variants]
    looks = list(_MARKERS.items())
    return tuple(
        Series(
            engine,
            precision,
            "var(--grey)" if engine == ORIGINAL else f"var(--series-{(index - 1) % 6})",
            *looks[index % len(looks)],
            count,
        )
        for index, (engine, precision, count) in enumerate(found)
    )


def latency(manifest: Manifest, profile: Profile) -> str:
    """Median latency against length, with the range from the 10th to the 90th percentile, as an ``<svg>`` element."""
    with mpl.rc_context(STYLE):
        figure, axes = blank("tokens", "milliseconds")
        for one in series(manifest):
            runs, color = one.runs(profile), COLORS[one.color]
            tokens = [run.tokens for run in runs]
            low, mid, high = ([stats.percentile_ms(run.samples_ns, q) for run in runs] for q in (10, 50, 90))
            axes.fill_between(tokens, low, high, color=color, alpha=0.15, linewidth=0)
            axes.plot(tokens, mid, color=color, marker=one.marker)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({run.tokens for run in profile.runs}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: f"{tokens:.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yscale("log")
        plain(axes.yaxis)
        return svg(figure, "latency")


def distribution(manifest: Manifest, profile: Profile, tokens: int) -> str:
    """Share of the requests that took at most so long, at one length, as an ``<svg>`` element."""
    with mpl.rc_context(STYLE):
        figure, axes = blank("milliseconds", "requests answered")
        for one in series(manifest):
            for run in one.runs(profile):
                if run.tokens == tokens:
                    _cumulative(axes, run, one)
        axes.set_xscale("log")
        plain(axes.xaxis)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
        axes.set_ylim(0, 1.03)
        return svg(figure, "distribution")


def _cumulative(axes: Axes, run: Run, one: Series) -> None:
    """Draw the cumulative distribution of a run, with its marker at the median."""
    samples = np.sort(run.samples_ns) / 1e6
    share = np.arange(1, samples.size + 1) / samples.size
    keep = np.unique(np.linspace(0, samples.size - 1, _POINTS).round().astype(int))
    color, middle = COLORS[one.color], samples.size // 2
    axes.step(samples[keep], share[keep], where="post", color=color)
    axes.plot(samples[middle], share[middle], color=color, marker=one.marker)


def by_length(manifest: Manifest, profile: Profile) -> str:
    """Latency of each request against its length, of runs whose lengths were drawn."""
    with mpl.rc_context(STYLE):
        figure, axes = blank("tokens", "milliseconds")
        for one in series(manifest):
            for run in one.runs(profile):
                if run.lengths:
                    keep = np.unique(np.linspace(0, len(run.lengths) - 1, 2 * _POINTS).round().astype(int))
                    tokens, times = np.array(run.lengths)[keep], np.array(run.samples_ns)[keep] / 1e6
                    axes.scatter(
                        tokens, times, s=9, color=COLORS[one.color], marker=one.marker, alpha=0.5, linewidths=0
                    )
        axes.set_yscale("log")
        plain(axes.yaxis)
        return svg(figure, "by-length")


def layers(manifest: Manifest, profile: Profile) -> str:
    """Time of each layer, of the runs whose operators are known, with the share of the roof that it reaches."""
    looks = {(one.engine, one.precision): one for one in series(manifest)}
    runs = [run for run in profile.runs if run.ops]
    names = [layer.name for layer in by_layer(runs[0], profile.peak)]
    with mpl.rc_context(STYLE):
        figure, axes = blank(
            "microseconds, and what is reached of the roof", "", height=1.2 + 0.19 * len(names) * len(runs)
        )
        size = 0.8 / len(runs)
        for index, run in enumerate(runs):
            found = by_layer(run, profile.peak)
            places = np.arange(len(found)) + (index - (len(runs) - 1) / 2) * size
            times = [layer.us for layer in found]
            color = COLORS[looks[run.engine, run.precision].color]
            bars = axes.barh(places, times, height=size * 0.9, color=color)
            roofs = ["" if layer.roof is None else f"{100 * layer.roof:.0f} %" for layer in found]
            axes.bar_label(bars, roofs, fontsize=9, color=FAINT, padding=3)
        axes.set_yticks(np.arange(len(names)), names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.1)
        return svg(figure, "layers")


def memory(manifest: Manifest, profile: Profile, tokens: int) -> str:
    """Memory of a fresh process of each variant at one length: its peak, and the part of it that is its own at rest."""
    found = [(one, run) for one in series(manifest) for run in one.runs(profile) if run.fresh and run.tokens == tokens]
    with mpl.rc_context(STYLE):
        figure, axes = blank("MB", "", height=0.9 + 0.36 * len(found))
        for place, (one, run) in enumerate(found):
            assert run.fresh is not None  # chosen above
            color = COLORS[one.color]
            axes.barh(place, run.fresh.peak_bytes / 1e6, height=0.62, color=color, alpha=0.35)
            if run.fresh.proportional_bytes:
                axes.barh(place, run.fresh.proportional_bytes / 1e6, height=0.62, color=color)
        axes.set_yticks(range(len(found)), [one.label for one, _ in found])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        return svg(figure, "memory")


def over_time(run: Run) -> str:
    """A sustained run: the requests over time, and the median of each minute, marked where it is throttled."""
    keep = np.unique(np.linspace(0, len(run.at_ns) - 1, 4 * _POINTS).round().astype(int))
    with mpl.rc_context(STYLE):
        figure, axes = blank("minutes", "milliseconds")
        at, took = np.array(run.at_ns)[keep] / 60e9, np.array(run.samples_ns)[keep] / 1e6
        axes.scatter(at, took, s=5, color=COLORS["var(--grey)"], alpha=0.5, linewidths=0)
        found = windows(run)
        ends = [*(one.begin_s for one in found[1:]), run.at_ns[-1] / 1e9]
        for one, end in zip(found, ends, strict=True):
            color = COLORS["var(--series-1)" if one.throttled else "var(--series-0)"]
            axes.plot([one.begin_s / 60, end / 60], [one.p50, one.p50], color=color, linewidth=3)
        axes.set_yscale("log")
        plain(axes.yaxis)
        return svg(figure, "over-time")
