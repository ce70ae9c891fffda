"""docs/runtime.md, of benchmarks/runtime.json; ``--check`` only says whether it is that of the committed figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgelm.profile.table import TIMES, Table, markdown, size
from page import absent, publish

ROOT = Path(__file__).parent.parent
DOCUMENT, RESULT = ROOT / "docs" / "runtime.md", ROOT / "benchmarks" / "runtime.json"
NAMES = {"onnxruntime": "ONNX Runtime", "litert": "LiteRT", "transformers": "`transformers.pipeline`"}
KINDS = {"bare": "bare", "edgelm": "edgelm", "first": "edgelm, the first time"}
FOR = {  # what the distributions of a plain install are for
    "annotated-doc": "typer",
    "annotated-types": "pydantic, for typer",
    "anyio": "httpx2, for tokenizers",
    "certifi": "httpx2, for tokenizers",
    "click": "the command line, through typer and huggingface_hub",
    "edgelm": "this",
    "filelock": "huggingface_hub, for tokenizers",
    "flatbuffers": "onnxruntime",
    "fsspec": "huggingface_hub, for tokenizers",
    "h11": "httpx2, for tokenizers",
    "hf-xet": "huggingface_hub, for tokenizers",
    "httpcore2": "httpx2, for tokenizers",
    "httpx2": "huggingface_hub, for tokenizers",
    "huggingface_hub": "tokenizers asks for it; edgelm never imports it",
    "idna": "httpx2, for tokenizers",
    "markdown-it-py": "rich",
    "mdurl": "rich",
    "ml_dtypes": "onnxruntime",
    "msgspec": "manifests and every other format, strictly",
    "numpy": "arrays in and out",
    "onnxruntime": "the engine",
    "packaging": "onnxruntime",
    "protobuf": "onnxruntime",
    "psutil": "cores, memory",
    "Pygments": "rich",
    "pydantic": "typer",
    "pydantic_core": "pydantic, for typer",
    "PyYAML": "huggingface_hub, for tokenizers",
    "rich": "tables and progress of the command line",
    "shellingham": "typer",
    "tokenizers": "text to token ids",
    "tqdm": "huggingface_hub, for tokenizers",
    "truststore": "httpx2, for tokenizers",
    "typer": "the command line",
    "typing-inspection": "pydantic, for typer",
    "typing_extensions": "huggingface_hub, for tokenizers",
}


def main() -> None:
    """Write the page, or check it. Without figures there is no page."""
    if not RESULT.exists():
        absent(DOCUMENT, by="make bench-runtime")
    publish(DOCUMENT, page(json.loads(RESULT.read_text(encoding="utf-8"))), by="benchmarks/runtime_page.py")


def page(result: dict[str, Any]) -> str:
    """The page as Markdown."""
    found = result["machine"]
    versions = ", ".join(f"{name} {found['versions'][name]}" for name in ("onnxruntime", "ai-edge-litert", "numpy"))
    sections = [
        "# What the runtime costs",
        "Measured by `make bench-runtime` on a DistilBERT of full size (66 M parameters, random weights), in int8 "
        f"unless another precision is named. Machine: {found['cpu']}, {found['cores']} cores, "
        f"{found['memory_bytes'] / 2**30:.0f} GiB, {found['system']}; {versions}.",
    ]
    for part, (title, write) in SECTIONS.items():
        if part in result:
            sections += [f"## {title}", *write(result[part])]
    return "\n\n".join(sections) + "\n"


def _first(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "From the start of the interpreter to the answer to one sentence. *Bare* is the engine and the tokenizer, "
        "without edgelm, from a file of its own; *the first time* is with the self-test of a first load on a machine."
    )
    yield markdown(Table("", ("what", "seconds", "peak memory"), tuple(_firsts(rows)))).strip()


def _firsts(rows: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for row in sorted(rows, key=lambda row: float(row["seconds"])):
        kind, _, engine = row["how"].partition(":")
        name = NAMES[kind] if not engine else f"{KINDS[kind]}, {NAMES[engine]}"
        yield name, f"{row['seconds']:.2f}", size(round(row["peak_rss_bytes"]))


def _overhead(rows: list[dict[str, Any]]) -> Iterator[str]:
    parts = [f"{row['us']:.0f} µs with {row['classes']} classes" for row in rows]
    took = f"The tokenizer takes {rows[0]['tokenizer_us']:.0f} µs for 16 words."
    yield f"Of one request, without tokenizing: {', '.join(parts)}. {took}"


def _choosing(found: dict[str, Any]) -> Iterator[str]:
    yield (
        "Processes that remember nothing load the bundle with all its variants. A choice is good if the variant is, "
        "measured at length and alone, within 5 % of the fastest. Where most calls are interrupted, variants are "
        "compared by the time that their threads ran."
    )
    rows = [
        (
            {0: "alone", 1: "a busy process beside it"}.get(row["busy"], f"{row['busy']} busy processes beside it"),
            f"{row['good']} of {row['runs']}",
            f"{100 * row['worst']:.1f} %",
            f"{row['seconds']:.1f}",
        )
        for row in found["rows"]
    ]
    yield markdown(
        Table("", ("machine", "good", "worst above the fastest", "seconds of the first load"), tuple(rows))
    ).strip()
    ordered = sorted(found["medians_ms"].items(), key=lambda item: float(item[1]))
    yield "At length: " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in ordered) + " for 16 and 32 tokens together."


def _padding(rows: list[dict[str, Any]]) -> Iterator[str]:
    count, tokens = rows[0]["texts"], rows[0]["tokens"]
    yield f"A list of {count:,} texts of {tokens:.0f} tokens on average, beside the same padded to 128."
    cells = [
        (
            NAMES[row["engine"]],
            f"{row['seconds']:.1f}",
            *(f"{row['padded_seconds'][batch]:.1f}" for batch in ("1", "32")),
            f"{min(row['padded_seconds'].values()) / row['seconds']:.1f}{TIMES}",
        )
        for row in rows
    ]
    columns = ("engine", "seconds", "padded, one by one", "padded, batches of 32", "faster than the better")
    yield markdown(Table("", columns, tuple(cells))).strip()


def _soak(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        f"Resident memory over {rows[0]['requests']:,} requests of 1 to 512 tokens, at random, of a model of two "
        "layers of 256."
    )
    cells = [
        (
            NAMES[row["engine"]],
            size(row["settled_bytes"]),
            size(row["most_bytes"]),
            f"{100 * (row['most_bytes'] / row['settled_bytes'] - 1):.1f} %",
            size(row["closed_bytes"]),
        )
        for row in rows
    ]
    yield markdown(Table("", ("engine", "after 500", "most later", "growth", "closed"), tuple(cells))).strip()


def _threads(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "One model asked by one thread and by eight at the same time; and two models in one process, asked in turn."
    cells = [
        (
            NAMES[row["engine"]],
            *(f"{row['per_second'][count]:.0f}" for count in ("1", "8")),
            *(f"{row['ms'][key]:.2f}" for key in ("same", "in turn")),
        )
        for row in rows
    ]
    columns = ("engine", "requests/s, 1 thread", "8 threads", "ms, one model", "ms, two in turn")
    yield markdown(Table("", columns, tuple(cells))).strip()


def _install(rows: list[dict[str, Any]]) -> Iterator[str]:
    total = sum(row["bytes"] for row in rows)
    yield f"{len(rows)} distributions, {total / 1e6:.0f} MB; no torch, transformers, tensorflow or onnx."
    cells = [(f"{row['name']} {row['version']}", FOR[row["name"]], f"{row['bytes'] / 1e6:.1f}") for row in rows]
    yield markdown(Table("", ("distribution", "what for", "MB"), tuple(cells))).strip()


SECTIONS: dict[str, tuple[str, Callable[[Any], Iterator[str]]]] = {
    "first_answer": ("A fresh process, to its first answer", _first),
    "overhead": ("Around the engine", _overhead),
    "choosing": ("The choice", _choosing),
    "padding": ("Mixed lengths", _padding),
    "soak": ("Memory over time", _soak),
    "threads": ("Threads", _threads),
    "install": ("What `pip install edgelm` brings", _install),
}


if __name__ == "__main__":
    main()
