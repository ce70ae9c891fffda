"""The picture of the page: a dot for each peer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib import ticker

__all__ = ["draw"]

_OURS, _SMALL, _OTHERS = "#1f6feb", "#1a7f37", "#6e7781"


def draw(milliseconds: Mapping[str, Mapping[str, float]], tokens: int, out: Path) -> None:
    """Medians, fastest first, on a logarithmic axis: the slowest takes far more than the fastest.

    Args:
        milliseconds: by model, by peer.
        tokens: of the request.
        out: a PNG.
    """
    figure, axes = plt.subplots(1, len(milliseconds), figsize=(6.2 * len(milliseconds), 5.6), squeeze=False)
    for axis, (model, found) in zip(axes[0], milliseconds.items(), strict=True):
        names = sorted(found, key=lambda name: -found[name])
        values = [found[name] for name in names]
        axis.scatter(values, names, s=42, color=[_color(name) for name in names], zorder=2)
        for name, value in zip(names, values, strict=True):
            axis.annotate(f"{value:.3g}", (value, name), (7, -3), textcoords="offset points", fontsize=8)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        axis.set_xlim(min(values) / 1.5, 2 * max(values))
        axis.grid(axis="y", color="#eaecef", zorder=0)
        axis.set_title(f"{model}: ms for {tokens} tokens, one thread", fontsize=10)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(out, dpi=110, format="png")
    plt.close(figure)


def _color(name: str) -> str:
    if name.startswith("edgelm compressed"):
        return _SMALL
    return _OURS if name.startswith("edgelm") else _OTHERS
