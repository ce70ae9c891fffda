"""docs/export.md, of benchmarks/export.json. ``--check`` only says whether the document is that of the figures."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgelm.profile.table import NONE, Table, markdown
from page import absent, publish

ROOT = Path(__file__).parent.parent
DOCUMENT, FIGURES = ROOT / "docs" / "export.md", ROOT / "benchmarks" / "export.json"
TASKS = ("SST-2", "CLINC150", "WNUT17", "SQuAD", "STS-B", "masked words")
FORMATS = {"onnx": "ONNX", "tflite": "TFLite"}
REFERENCE = "int8-dynamic.tflite"

Parts = dict[str, dict[str, Any]]


def main() -> None:
    """Write the document, or check it. Without figures there is none."""
    if not FIGURES.exists():
        absent(DOCUMENT, by="make bench-export")
    publish(DOCUMENT, document(json.loads(FIGURES.read_bytes())["parts"]), by="benchmarks/export_page.py")


def document(parts: Parts) -> str:
    """The Markdown."""
    machine = parts["SST-2"]["machine"]
    return (
        "\n\n".join(
            [
                "# What a format and a precision keep, weigh and cost",
                _said("""
                    Made by `make bench-export`, from [its result](../benchmarks/export.json). What each name means,
                    operator by operator, is in [precisions](precisions.md). Every figure is of an exported
                    artifact, run by its engine.
                """),
                _said(f"""
                    Machine: {machine["cpu"]}, {machine["cores"]} cores, {", ".join(machine["isa"])},
                    {machine["system"]}. {_integers(machine["isa"])}
                """),
                "## Accuracy",
                _models(parts),
                markdown(_scores(parts)).strip(),
                _said("""
                    In brackets: what is lost against PyTorch in fp32, in points (a hundredth of a metric), or of
                    the perplexity, in percent. A negative loss is a gain; a dash was not measured.
                """),
                "## Parity",
                _said("""
                    Largest difference of an output from PyTorch's, on 300 texts (16 of masked words), each alone
                    and in padded batches; and how often the decision is the same (of vectors: their mean cosine).
                """),
                markdown(_parity(parts)).strip(),
                *_reading(parts),
                *(_others(parts) if "others" in parts else ()),
                *(_full(parts) if "full" in parts else ()),
                *(line for name, part in parts.items() if name.startswith("speed") for line in _speed(name, part)),
            ]
        )
        + "\n"
    )


def _integers(isa: list[str]) -> str:
    if any("vnni" in one for one in isa):
        return "It has VNNI, so the weights of ONNX have 8 bits."
    return "It has no VNNI, so the weights of ONNX have [7 bits](precisions.md#integers-that-fit) here."


def _said(words: str) -> str:
    """A paragraph."""
    return textwrap.fill(" ".join(words.split()), 119, break_long_words=False, break_on_hyphens=False)


def _models(parts: Parts) -> str:
    names = {
        "SST-2": "MiniLM's weights, fine-tuned",
        "CLINC150": "MiniLM's weights, fine-tuned",
        "WNUT17": "MiniLM's weights, 5 passes (`benchmarks/heads.py`)",
        "SQuAD": "MiniLM's weights, 2 passes over the 8,378 questions (`benchmarks/heads.py`)",
        "STS-B": "all-MiniLM-L6-v2 as it is",
        "masked words": "MiniLM's weights, 1 pass over 3,000 paragraphs (`benchmarks/heads.py`)",
    }
    rows = []
    for task in _present(parts):
        score = parts[task]["rows"][0]["scores"][0]
        rows.append((task, names[task], score["metric"], f"{score['n']:,}"))
    return markdown(Table("", ("task", "model", "score", "n"), tuple(rows))).strip()


def _present(parts: Parts) -> list[str]:
    return [task for task in TASKS if task in parts]


def _cells(parts: Parts, cell: Any) -> list[tuple[str, ...]]:
    """A row for every format and precision, a cell for every task."""
    keys = [(row["format"], row["precision"]) for row in parts["SST-2"]["rows"][1:]]
    found = []
    for form, precision in keys:
        cells = []
        for task in _present(parts):
            row = next((r for r in parts[task]["rows"][1:] if (r["format"], r["precision"]) == (form, precision)), None)
            cells.append(NONE if row is None else cell(row))
        found.append((FORMATS[form], precision, *cells))
    return found


def _scores(parts: Parts) -> Table:
    def cell(row: dict[str, Any]) -> str:
        value = row["score"]["value"]
        return f"{value:.4f} ({row['loss']:.2f})" if value < 1.5 else f"{value:.2f} ({row['loss']:.2f} %)"

    def plain(task: str) -> str:
        value = parts[task]["rows"][0]["scores"][0]["value"]
        return f"{value:.4f}" if value < 1.5 else f"{value:.2f}"

    first = ("PyTorch", "fp32", *(plain(task) for task in _present(parts)))
    return Table("", ("format", "precision", *_present(parts)), (first, *_cells(parts, cell)))


def _parity(parts: Parts) -> Table:
    def cell(row: dict[str, Any]) -> str:
        found = row["parity"]
        return f"{found['max_abs_diff']:.2g} · {100 * found['agreement']:.1f} %"

    return Table("", ("format", "precision", *_present(parts)), tuple(_cells(parts, cell)))


def _reading(parts: Parts) -> Iterator[str]:
    """What another converter and another engine make of the TFLite files."""
    rows = [(task, row) for task in _present(parts) for row in parts[task]["rows"]]
    found = [(task, row["read_by_tf2onnx"]) for task, row in rows if "read_by_tf2onnx" in row]
    if found:
        yield _said(f"""
            The fp32 TFLite artifacts were also read by tf2onnx and run by ONNX Runtime; neither the converter that
            wrote them nor the engine that they are for has a part in that. {", ".join(task for task, _ in found)}
            differ from PyTorch by {max(value for _, value in found):.1g} at most, on 50 texts.
        """)


def _others(parts: Parts) -> Iterator[str]:
    ours = [row | {"by": "edgelm"} for row in parts["SST-2"]["rows"][1:] if row["precision"] == "int8-static"]
    yield "## Static int8, beside what other tools write"
    yield _said("""
        SST-2, the same teacher and the same mask of -10,000; the others are calibrated on 100 training texts,
        edgelm on 128 (TFLite) and 256 (ONNX). Microsoft's own report has static DistilBERTs lose 15.2 points on
        SST-2 and 88 on SQuAD (winml-cli, July 2026).
    """)
    rows = []
    for row in (*ours, *parts["others"]["rows"]):
        score = f"{row['score']['value']:.4f}", f"{row['loss']:.2f}"
        rows.append((row["by"], FORMATS[row["format"]], *score, f"{row['bytes'] / 1e6:.1f} MB"))
    yield markdown(Table("", ("by", "format", "accuracy", "loss", "size"), tuple(rows))).strip()


def _full(parts: Parts) -> Iterator[str]:
    (found,) = parts["full"]["rows"]
    cost, sizes = found["cost"], found["bytes"]
    larger = sizes["int8-dynamic tflite"] / found["one_signature"] - 1
    yield "## DistilBERT-base"
    yield _said(f"""
        {found["parameters"]:,} parameters of random value. To both formats in int8-dynamic, four signatures, each
        loaded and run: {cost["seconds"]:.0f} s and {cost["peak_bytes"] / 1e9:.1f} GB of memory at most, on 2 cores.
        A TFLite file with four signatures (16, 32, 64, 128) is {100 * larger:.1f} % larger than one with one.
    """)
    names = sorted({name.split()[0] for name in sizes}, key=lambda name: -sizes[f"{name} onnx"])
    rows = [(name, *(f"{sizes[f'{name} {form}'] / 1e6:.1f} MB" for form in FORMATS)) for name in names]
    yield markdown(Table("", ("precision", "ONNX", "TFLite"), tuple(rows))).strip()


def _speed(title: str, part: dict[str, Any]) -> Iterator[str]:
    machine = part["machine"]
    medians = [{name: statistics.median(ns) / 1e6 for name, ns in row["ns"].items()} for row in part["rows"]]
    names = sorted(medians[0], key=lambda name: medians[-1][name])
    engines = ", ".join(machine["versions"][name] for name in ("onnxruntime", "ai-edge-litert"))
    yield f"## {title.capitalize().replace('vnni', 'VNNI')}"
    yield _said(f"""
        One thread, one text, all artifacts in turn, each run once untimed and once timed; the median in ms, and in
        brackets, of TFLite's int8-dynamic at the same length. Machine: {machine["cpu"]}, {machine["cores"]} cores,
        {", ".join(machine["isa"])}; ONNX Runtime and LiteRT {engines}.
    """)
    rows = []
    for name in names:
        precision, _, form = name.rpartition(".")
        cells = [f"{found[name]:.1f} ({found[name] / found[REFERENCE]:.2f})" for found in medians]
        rows.append((FORMATS[form], precision, *cells))
    head = ("format", "precision", *(f"{row['tokens']} tokens" for row in part["rows"]))
    yield markdown(Table("", head, tuple(rows))).strip()
    gains = [found["fp32.onnx"] / found["int8-dynamic.onnx"] for found in medians]
    yield _said(f"""
        ONNX Runtime's int8-dynamic is {min(gains):.1f} to {max(gains):.1f} times as fast as its fp32 on this processor.
        A TFLite file pads to its next signature, which shows at 40, 65 and 80 tokens.
    """)


if __name__ == "__main__":
    main()
