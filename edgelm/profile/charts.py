"""Charts of a profile as SVG that is put into the page: it takes the page's font and colours, light or dark."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from edgelm.manifest import Manifest
from edgelm.profile import stats
from edgelm.profile.table import ORIGINAL
from edgelm.runs import Profile, Run

__all__ = ["Series", "distribution", "latency", "series"]

# matplotlib cannot write CSS variables: it draws in these colours, and they are replaced in what it wrote.
_FAINT, _GRID = "#000002", "#000003"
_COLORS = {f"var(--series-{index})": f"#00001{index}" for index in range(6)} | {"var(--grey)": "#000004"}
_VARIABLES = {_FAINT: "var(--faint)", _GRID: "var(--grid)"} | {drawn: name for name, drawn in _COLORS.items()}

_STYLE: Any = {  # matplotlib types its settings by their names
    "svg.fonttype": "none",  # text stays text: it can be selected and has the page's font
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _FAINT,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _FAINT,
    "ytick.labelcolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.0,
}
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
    with mpl.rc_context(_STYLE):
        figure, axes = _axes("tokens", "milliseconds")
        for one in series(manifest):
            runs, color = one.runs(profile), _COLORS[one.color]
            tokens = [run.tokens for run in runs]
            low, mid, high = ([stats.percentile_ms(run.samples_ns, q) for run in runs] for q in (10, 50, 90))
            axes.fill_between(tokens, low, high, color=color, alpha=0.15, linewidth=0)
            axes.plot(tokens, mid, color=color, marker=one.marker)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({run.tokens for run in profile.runs}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: f"{tokens:.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yscale("log")
        _plain(axes.yaxis)
        return _svg(figure, "latency")


def distribution(manifest: Manifest, profile: Profile, tokens: int) -> str:
    """Share of the requests that took at most so long, at one length, as an ``<svg>`` element."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes("milliseconds", "requests answered")
        for one in series(manifest):
            for run in one.runs(profile):
                if run.tokens == tokens:
                    _cumulative(axes, run, one)
        axes.set_xscale("log")
        _plain(axes.xaxis)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
        axes.set_ylim(0, 1.03)
        return _svg(figure, "distribution")


def _cumulative(axes: Axes, run: Run, one: Series) -> None:
    """Draw the cumulative distribution of a run, with its marker at the median."""
    samples = np.sort(run.samples_ns) / 1e6
    share = np.arange(1, samples.size + 1) / samples.size
    keep = np.unique(np.linspace(0, samples.size - 1, _POINTS).round().astype(int))
    color, middle = _COLORS[one.color], samples.size // 2
    axes.step(samples[keep], share[keep], where="post", color=color)
    axes.plot(samples[middle], share[middle], color=color, marker=one.marker)


def _axes(across: str, up: str) -> tuple[Figure, Axes]:
    """An empty chart of a width that can still be read when a phone shrinks it."""
    figure = Figure(figsize=(4.8, 3.1), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    return figure, axes


def _plain(axis: Axis) -> None:
    """Write 1, 2, 5, 10, … on a logarithmic axis, as numbers and not as powers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda time, _: f"{time:g}"))
    axis.set_minor_formatter(NullFormatter())


def _svg(figure: Figure, name: str) -> str:
    """The chart as an element to be put into HTML: its ids are its own, its colours are the page's."""
    with io.StringIO() as file, mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        text = file.getvalue()
    text = text[text.index("<svg") :]  # the declaration and document type belong to a file of its own
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return text
