"""docs/compression.md and docs/pareto.png, of benchmarks/compression.json, ablation.json and budget.json.

``--check`` only says whether the document is that of the committed figures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from edgelm.bundle import staged
from edgelm.profile.table import NONE, TIMES, Table, markdown, size

ROOT = Path(__file__).parent.parent
DOCUMENT, PICTURE = ROOT / "docs" / "compression.md", ROOT / "docs" / "pareto.png"
NAMES = {"clinc150": "CLINC150", "sst2": "SST-2"}
ENGINES = {"onnxruntime": "ONNX Runtime", "litert": "LiteRT"}
FLOORS = {  # points of accuracy that each recipe may lose
    "post-training": {"sst2": 0.3, "clinc150": 0.7},
    "post-training-2x": {"sst2": 0.8, "clinc150": 1.2},
    "small-vocab": {"sst2": 0.5, "clinc150": 0.5},
    "distilled-3x": {"sst2": 0.7, "clinc150": 0.6},
    "distilled-5x": {"sst2": 1.5, "clinc150": 1.0},
    "smallest": {"sst2": 1.0, "clinc150": 1.0},
}


def main() -> None:
    """Write both, or check the document."""
    result = json.loads((ROOT / "benchmarks" / "compression.json").read_text(encoding="utf-8"))
    text = document(result)
    if "--check" in sys.argv:
        same = DOCUMENT.exists() and DOCUMENT.read_text(encoding="utf-8") == text
        sys.exit(0 if same else "docs/compression.md: figures differ from benchmarks/: run benchmarks/pareto.py")
    with staged(DOCUMENT) as staging:
        staging.write_text(text, encoding="utf-8")
    with staged(PICTURE) as staging:
        picture(result["rows"], staging)


def document(result: dict[str, Any]) -> str:
    """The Markdown."""
    rows = sorted(result["rows"], key=lambda row: (row["task"], row["macs"], row["vocab"] < 30000))
    here = rows[0]["machine"]
    return "\n".join(
        [
            "# What compression keeps",
            "",
            "Two teachers, DistilBERTs of 22.7 M parameters (6 layers of 384, 12 heads, 1536 FFN neurons, vocabulary",
            "30,522), and recipes of `examples/sst2` and `examples/clinc150`. Loss is in points of accuracy",
            "against the fp32 teacher on the same dev texts, with the 95 % interval of the paired difference; a",
            "negative loss is a gain. Made by `make bench-compress`, which needs the data and the teachers.",
            "",
            *(part for name in NAMES for part in _tables(rows, name)),
            "![Accuracy against latency and against bytes, a line for each task and engine](pareto.png)",
            "",
            f"Machine: {here['cpu']}, {here['cores']} cores, {here['system']}. Latency: int8-dynamic,",
            f"{result['tokens']} tokens, {result['threads']} thread, the median of 300 requests or more, in turns with",
            "the unpruned artifact. Seeds and hashes of the data are in [the committed",
            "result](../benchmarks/compression.json).",
            "",
        ]
    )


def _tables(rows: list[dict[str, Any]], task: str) -> tuple[str, ...]:
    return f"## {NAMES[task]}", "", _accuracy(rows, task), _artifacts(rows, task)


def _accuracy(rows: list[dict[str, Any]], task: str) -> str:
    found = [
        (
            row["recipe"],
            f"{row['macs']:.2f}",
            str(row["vocab"]),
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['accuracy']:.4f}",
            f"{row['loss']:.2f}",
            f"{row['interval'][0]:.2f} to {row['interval'][1]:.2f}",
            _floor(row),
            str(row["new_unknown"]),
            f"{row['seconds']:.0f} s",
        )
        for row in rows
        if row["task"] == task
    ]
    columns = ("recipe", "MACs ÷", "vocabulary", "parameters", "accuracy", "loss", "95 %", "floor", "new [UNK]", "time")
    return markdown(Table("", columns, tuple(found)))


def _floor(row: dict[str, Any]) -> str:
    floor = FLOORS.get(row["recipe"], {}).get(row["task"])
    return NONE if floor is None else f"{floor} {'met' if row['loss'] <= floor + 1e-9 else 'missed'}"


def _artifacts(rows: list[dict[str, Any]], task: str) -> str:
    found = [
        (
            row["recipe"],
            ENGINES[variant["engine"]],
            size(variant["bytes"]),
            f"1/{row['fp32_checkpoint_bytes'] / variant['bytes']:.0f}",
            f"{variant['accuracy']:.4f}",
            f"{variant['p50_ms']:.2f}",
            f"{variant['faster']:.2f}{TIMES}",
        )
        for row in rows
        if row["task"] == task
        for variant in row["variants"]
    ]
    found += [
        (row["recipe"], "refused by its gate", *(NONE,) * 5) for row in rows if row["task"] == task and row["refused"]
    ]
    columns = ("recipe", "int8 on", "size", "of fp32", "accuracy", "p50 ms", "faster than unpruned int8")
    return markdown(Table("", columns, tuple(found)))


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy of the int8 artifacts against latency and against bytes."""
    axes: dict[str, Callable[[dict[str, Any]], float]] = {
        "p50 at 32 tokens, one thread, ms": lambda variant: float(variant["p50_ms"]),
        "size of the artifact, MB": lambda variant: variant["bytes"] / 1e6,
    }
    figure, grid = plt.subplots(len(NAMES), len(axes), figsize=(10, 7.5), layout="constrained")
    for line, task in enumerate(NAMES):
        for column, (label, value) in enumerate(axes.items()):
            _panel(grid[line][column], [row for row in rows if row["task"] == task], label, value)
    figure.savefig(path, format="png", dpi=110)
    plt.close(figure)


def _panel(axis: Any, rows: list[dict[str, Any]], label: str, value: Callable[[dict[str, Any]], float]) -> None:
    for engine, marker in (("onnxruntime", "o"), ("litert", "s")):
        points = sorted(
            (value(variant), 100 * variant["accuracy"], row["recipe"])
            for row in rows
            for variant in row["variants"]
            if variant["engine"] == engine
        )
        drawn = axis.plot([x for x, _, _ in points], [y for _, y, _ in points], marker, label=ENGINES[engine])
        front = [p for i, p in enumerate(points) if all(p[1] > q[1] for q in points[:i])]
        axis.plot([x for x, _, _ in front], [y for _, y, _ in front], "-", color=drawn[0].get_color(), alpha=0.4)
        if engine == "litert":
            for x, y, name in points:
                axis.annotate(name, (x, y), xytext=(4, -9), textcoords="offset points", fontsize=7)
    if rows:
        axis.axhline(100 * rows[0]["teacher"], color="grey", linewidth=0.8, linestyle=":")
        axis.set_title(f"{NAMES[rows[0]['task']]}: accuracy, %", fontsize=10, loc="left")
    axis.set_xlabel(label)
    axis.margins(x=0.18, y=0.12)
    axis.legend(fontsize=8, loc="best")


if __name__ == "__main__":
    main()
