"""How charts are drawn: as SVG that is put into the page and takes its font and colours, light or dark."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

__all__ = ["COLORS", "FAINT", "STYLE", "blank", "plain", "svg"]

# matplotlib cannot write CSS variables: it draws in these colours, and they are replaced in what it wrote.
FAINT, _GRID = "#000002", "#000003"
COLORS = {f"var(--series-{index})": f"#00001{index}" for index in range(6)} | {"var(--grey)": "#000004"}
_VARIABLES = {FAINT: "var(--faint)", _GRID: "var(--grid)"} | {drawn: name for name, drawn in COLORS.items()}

STYLE: Any = {  # matplotlib types its settings by their names
    "svg.fonttype": "none",  # text stays text: it can be selected and has the page's font
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": FAINT,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.0,
}


def blank(across: str, up: str, height: float = 3.1) -> tuple[Figure, Axes]:
    """An empty chart of a width that can still be read when a phone shrinks it."""
    figure = Figure(figsize=(4.8, height), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    return figure, axes


def plain(axis: Axis) -> None:
    """Write 1, 2, 5, 10, … on a logarithmic axis, as numbers and not as powers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda time, _: f"{time:g}"))
    axis.set_minor_formatter(NullFormatter())


def svg(figure: Figure, name: str) -> str:
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
