"""docs/compression.md and docs/pareto.png, of benchmarks/compression.json, ablation.json and budget.json.

``--check`` only says whether the document is that of the committed figures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from edgelm.bundle import staged
from edgelm.profile.table import NONE, TIMES, Table, markdown, size
from page import publish

ROOT = Path(__file__).parent.parent
DOCUMENT, PICTURE = ROOT / "docs" / "compression.md", ROOT / "docs" / "pareto.png"
NAMES = {"clinc150": "CLINC150", "sst2": "SST-2"}
ENGINES = {"onnxruntime": "ONNX Runtime", "litert": "LiteRT"}
CORES = ("cortex-a53", "cortex-a76")
HOW = {
    "logits": "logits alone",
    "states": "logits and the hidden states of every token, as in the table above",
    "augment": "the same, on four new texts of each as well",
    "gradual": "the same, half of the steps at the square root of the MACs, then pruned again",
}
FLOORS = {  # points of accuracy that each recipe may lose
    "post-training": {"sst2": 0.3, "clinc150": 0.7},
    "post-training-2x": {"sst2": 0.8, "clinc150": 1.2},
    "small-vocab": {"sst2": 0.5, "clinc150": 0.5},
    "distilled-3x": {"sst2": 0.7, "clinc150": 0.6},
    "distilled-5x": {"sst2": 1.5, "clinc150": 1.0},
    "smallest": {"sst2": 1.0, "clinc150": 1.0},
    "fastest": {"sst2": 1.0},
}


def main() -> None:
    """Write both, or check the document."""
    result, ablation, budget = (_read(name) for name in ("compression", "ablation", "budget"))
    assert result is not None, "expected benchmarks/compression.json: run benchmarks/compression.py"
    publish(DOCUMENT, document(result, ablation, budget), by="benchmarks/pareto.py")
    with staged(PICTURE) as staging:
        picture(result["rows"], staging)


def _read(name: str) -> dict[str, Any] | None:
    path = ROOT / "benchmarks" / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def document(result: dict[str, Any], ablation: dict[str, Any] | None, budget: dict[str, Any] | None) -> str:
    """The Markdown."""
    rows = sorted(result["rows"], key=lambda row: (row["task"], row["macs"], row["vocab"] < 30000))
    here = _machine(rows)
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
            "![Accuracy against latency, bytes and ARM instructions, a line for each engine](pareto.png)",
            "",
            f"Machine: {here['cpu']}, {here['cores']} cores, {here['system']}. Time: of `edgelm compress` as a whole,",
            "on one thread, with one to three others on the same two cores. Latency: int8-dynamic,",
            f"{result['tokens']} tokens, {result['threads']} thread, the median of 300 requests or more, in turns with",
            "the unpruned artifact. Instructions: millions, of the same request on an emulated core; [a cost, not a",
            "latency](arm.md). Weights of the ONNX artifacts have 8 bits, which this machine multiplies exactly; for",
            "others edgelm writes [7](precisions.md#integers-that-fit). Seeds and hashes of the data are in [the",
            "committed result](../benchmarks/compression.json).",
            "",
            *_elsewhere(rows),
            *_sentences(rows),
            *(_ablation(ablation) if ablation else ()),
            *(_budget(budget) if budget else ()),
        ]
    )


def _machine(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """That most rows were measured on."""
    machines = [row["machine"] for row in rows]
    return dict(max(machines, key=machines.count))


def _elsewhere(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """What is to be said of rows that were measured on another machine."""
    others = [row for row in rows if row["machine"] != _machine(rows)]
    if not others:
        return ()
    isa = ", ".join(others[0]["machine"]["isa"])
    names = ", ".join(f"{NAMES[row['task']]} {row['recipe']}" for row in others)
    return (
        f"\\* {names}: measured later, with ONNX weights of 7 bits, on an {others[0]['machine']['cpu']} with",
        f"{isa} and no VNNI. Its p50 does not compare with the others and is not in the",
        "picture; how much faster it is than the unpruned artifact was measured there in turns, as always.",
        "",
    )


def _sentences(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Which recipes had more texts than their task's."""
    names = [f"{NAMES[row['task']]} {row['recipe']}" for row in rows if len(row["settings"]["data"]) > 2]
    if not names:
        return ()
    return (f"{', '.join(names)}: distilled on the sentences of 4,000 film reviews [IMDb] as well.", "")


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
            NONE if row["seconds"] is None else f"{row['seconds'] / 60:.1f} min",
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
            size(variant["deflated_bytes"]) if "deflated_bytes" in variant else NONE,
            f"1/{row['fp32_checkpoint_bytes'] / variant['bytes']:.0f}",
            f"{variant['accuracy']:.4f}",
            f"{variant['p50_ms']:.2f}{'' if row['machine'] == _machine(rows) else ' *'}",
            f"{variant['faster']:.2f}{TIMES}",
            *(_millions(variant["arm_instructions"], core) for core in CORES),
        )
        for row in rows
        if row["task"] == task
        for variant in row["variants"]
    ]
    found += [
        (row["recipe"], "refused by its gate", *(NONE,) * 8) for row in rows if row["task"] == task and row["refused"]
    ]
    columns = ("recipe", "int8 on", "size", "deflated", "of fp32", "accuracy", "p50 ms", "faster than unpruned", *CORES)
    return markdown(Table("", columns, tuple(found)))


def _millions(counts: dict[str, int] | None, core: str) -> str:
    return NONE if counts is None else f"{counts[core] / 1e6:.1f}"


def _ablation(result: dict[str, Any]) -> tuple[str, ...]:
    settings, rows = result["settings"], result["rows"]
    found = [
        (by, *(_or_none(_accuracies(rows, by, fit, how)) for fit in (False, True) for how in ("no", "states")))
        for by in dict.fromkeys(row["by"] for row in rows)
    ]
    columns = ("importance", "removed", "removed, distilled", "and fitted", "and fitted, distilled")
    others = [
        (words, f"{value:.4f}")
        for how, words in HOW.items()
        for value in _accuracies(rows, "surgeon", fitted=True, how=how)
    ]
    values = {how: next(_accuracies(rows, "surgeon", fitted=True, how=how), 0.0) for how in HOW}
    kinds = (
        "Surgeon, fitted, and as many steps of other kinds:",
        "",
        markdown(Table("", ("distillation", "accuracy"), tuple(others))),
        *(("Pruning in two steps is worse than at once; edgelm does not do it.", "") if _at_once(values) else ()),
    )
    return (
        "## Which part buys what",
        "",
        f"Accuracy on the dev texts of CLINC150 at MACs ÷ {settings['macs']:g}, the vocabulary whole. *Fitted*: the",
        f"layers, by least squares. *Distilled*: for {settings['epochs']:g} passes over the training texts, no more.",
        "Made by `make bench-ablation`.",
        "",
        markdown(Table("", columns, tuple(found))),
        "0.0067 is one answer for all texts: one of 150.",
        "",
        *(kinds if len(others) > 1 else ()),
    )


def _at_once(values: dict[str, float]) -> bool:
    return 0 < values["gradual"] < values["states"]


def _or_none(values: Iterator[float]) -> str:
    return next((f"{value:.4f}" for value in values), NONE)


def _accuracies(rows: list[dict[str, Any]], by: str, fitted: bool, how: str) -> Iterator[float]:
    return (r["accuracy"] for r in rows if (r["by"], r["fitted"], r["distil"]) == (by, fitted, how))


def _budget(result: dict[str, Any]) -> tuple[str, ...]:
    found = [
        (
            ENGINES[row["engine"]],
            f"{row['divisor']:g}",
            *(f"{predicted:.2f} / {measured:.2f}" for _, predicted, measured in row["ms"]),
            " / ".join(f"{count / 1e6:.2f}" for count in row["bytes"]),
        )
        for row in result["rows"]
    ]
    asked, machine = result["budget_tokens"], result["machine"]
    errors = [abs(p / m - 1) for row in result["rows"] for tokens, p, m in row["ms"] if tokens == asked]
    lengths = [f"{tokens} tokens" for tokens, _, _ in result["rows"][0]["ms"]]
    return (
        "## Does a budget come true?",
        "",
        "The CLINC150 teacher, and its prunings to a share of its latency at "
        f"{result['budget_tokens']} tokens: predicted / measured",
        f"p50 in ms, and MB, of int8-dynamic. At {asked} tokens, the length that the budget is for, the largest error",
        f"of a latency is {100 * max(errors):.1f} %; at all lengths, {100 * result['largest_error']:.1f} %. Measured",
        f"on an {machine['cpu']} with {', '.join(machine['isa'])}, {machine['cores']} cores.",
        "Made by `make bench-budget`.",
        "",
        markdown(Table("", ("engine", "latency ÷", *lengths, "MB"), tuple(found))),
    )


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy of the int8 artifacts against latency, bytes and ARM instructions."""
    here = _machine(rows)
    axes: dict[str, Callable[[dict[str, Any]], float]] = {
        "p50 at 32 tokens, one thread, ms": lambda variant: float(variant["p50_ms"]),
        "size of the artifact, MB": lambda variant: variant["bytes"] / 1e6,
    }
    if all(variant["arm_instructions"] for row in rows for variant in row["variants"]):
        axes[f"instructions on {CORES[0]}, millions"] = lambda variant: variant["arm_instructions"][CORES[0]] / 1e6
    figure, grid = plt.subplots(len(NAMES), len(axes), figsize=(5 * len(axes), 7.5), layout="constrained")
    for line, task in enumerate(NAMES):
        for column, (label, value) in enumerate(axes.items()):
            found = [row for row in rows if row["task"] == task]
            if column == 0:  # latencies of two machines do not compare
                found = [row for row in found if row["machine"] == here]
            _panel(grid[line][column], found, label, value)
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
