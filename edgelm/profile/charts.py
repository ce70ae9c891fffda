"""Charts of a profile as SVG that is put into the page: it takes the page's font and colours, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from edgelm.manifest import Manifest, Profile, Run
from edgelm.profile import stats
from edgelm.profile.table import ORIGINAL, size

__all__ = ["distribution", "latency", "sizes"]

# matplotlib cannot write CSS variables: it draws in these colours, and they are replaced in what it wrote.
_INK, _FAINT, _GRID, _GREY = "#000001", "#000002", "#000003", "#000004"
_SERIES = ("#000011", "#000012", "#000013", "#000014", "#000015", "#000016")
_VARIABLES = {
    _INK: "var(--ink)",
    _FAINT: "var(--faint)",
    _GRID: "var(--grid)",
    _GREY: "var(--grey)",
} | {color: f"var(--series-{index})" for index, color in enumerate(_SERIES)}

_STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be selected and has the page's font
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.color": _INK,
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
}
_POINTS = 200  # of a distribution: a chart has no room for more
_MARKERS = ("o", "s", "^", "D", "v", "P")  # so that no series is known by its colour alone

_Key = tuple[str, str]


def latency(manifest: Manifest, profile: Profile) -> str:
    """Median latency against length, with the range from the 10th to the 90th percentile, as an ``<svg>`` element."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes()
        for index, (key, runs) in enumerate(_series(profile.runs).items()):
            tokens = [run.tokens for run in runs]
            low, mid, high = ([stats.percentile_ms(run.samples_ns, q) for run in runs] for q in (10, 50, 90))
            look = {"color": _color(key, manifest), "marker": _MARKERS[index % len(_MARKERS)]}
            axes.fill_between(tokens, low, high, color=look["color"], alpha=0.15, linewidth=0)
            axes.plot(tokens, mid, markersize=4.5, linewidth=1.8, label=_label(key), **look)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({run.tokens for run in profile.runs}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: f"{tokens:.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yscale("log")
        _plain(axes.yaxis)
        axes.set_xlabel("tokens")
        axes.set_ylabel("milliseconds")
        _legend(figure, axes)
        return _svg(figure, "latency")


def distribution(manifest: Manifest, profile: Profile, tokens: int) -> str:
    """Share of the requests that took at most so long, at one length, as an ``<svg>`` element."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes()
        for key, runs in _series(run for run in profile.runs if run.tokens == tokens).items():
            samples = np.sort([sample for run in runs for sample in run.samples_ns]) / 1e6
            share = np.arange(1, samples.size + 1) / samples.size
            keep = np.unique(np.linspace(0, samples.size - 1, _POINTS).round().astype(int))
            axes.step(samples[keep], share[keep], color=_color(key, manifest), linewidth=1.8, label=_label(key))
        axes.set_xscale("log")
        _plain(axes.xaxis)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(f"milliseconds at {tokens} tokens")
        axes.set_ylabel("requests answered")
        _legend(figure, axes)
        return _svg(figure, "distribution")


def sizes(manifest: Manifest) -> str:
    """Size of the original and of each variant as bars, as an ``<svg>`` element."""
    keys = [(ORIGINAL, "fp32"), *((variant.engine, variant.precision) for variant in manifest.variants)]
    counts = [manifest.baseline.bytes, *(variant.bytes for variant in manifest.variants)]
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(height=0.3 + 0.36 * len(keys))
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.barh(range(len(keys)), counts, color=[_color(key, manifest) for key in keys], height=0.6)
        for index, count in enumerate(counts):
            axes.text(count + max(counts) * 0.015, index, size(count), va="center", color=_INK)
        axes.set_yticks(range(len(keys)), [_label(key) for key in keys])
        axes.tick_params(axis="y", length=0, labelcolor=_INK)
        axes.set_xticks([])
        axes.set_xlim(0, max(counts) * 1.2)
        axes.invert_yaxis()
        return _svg(figure, "sizes")


def _axes(height: float = 3.5) -> tuple[Figure, Axes]:
    """An empty chart of a width that can still be read when a phone shrinks it."""
    figure = Figure(figsize=(5.4, height), layout="constrained")
    return figure, figure.subplots()


def _series(runs: Iterable[Run]) -> dict[_Key, list[Run]]:
    """Runs by engine and precision, shortest length first."""
    found: dict[_Key, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.tokens):
        found.setdefault((run.engine, run.precision), []).append(run)
    return found


def _color(key: _Key, manifest: Manifest) -> str:
    """The colour of a variant is the same in every chart; the original is grey."""
    keys = [(variant.engine, variant.precision) for variant in manifest.variants]
    return _SERIES[keys.index(key) % len(_SERIES)] if key in keys else _GREY


def _label(key: _Key) -> str:
    """What a series is called."""
    return "original, PyTorch" if key[0] == ORIGINAL else " ".join(key)


def _plain(axis: Axis) -> None:
    """Write 1, 2, 5, 10, … on a logarithmic axis, as numbers and not as powers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda time, _: f"{time:g}"))
    axis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, axes: Axes) -> None:
    """Name the series above the chart, where they cannot cover it."""
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper left", ncols=2, frameon=False, handlelength=1.6, columnspacing=1.4)


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
