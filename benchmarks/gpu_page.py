"""docs/gpu.md, of benchmarks/gpu.json; ``--check`` only says whether it is that of the committed figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgelm.profile.table import Table, markdown, milliseconds, size
from page import absent, publish

ROOT = Path(__file__).parent.parent
DOCUMENT, RESULT = ROOT / "docs" / "gpu.md", ROOT / "benchmarks" / "gpu.json"
COLUMNS = ("edgelm fp16", "edgelm fp32", "ONNX Runtime fp16", "torch.compile fp16", "PyTorch fp16", "PyTorch fp32")


def main() -> None:
    """Write the page, or check it. Without figures there is no page."""
    if not RESULT.exists():
        absent(DOCUMENT, by="make bench-gpu")
    publish(DOCUMENT, page(json.loads(RESULT.read_text(encoding="utf-8"))), by="benchmarks/gpu_page.py")


def page(result: dict[str, Any]) -> str:
    """The page as Markdown."""
    machine, versions = result["machine"], result["machine"]["versions"]
    gpus = ", ".join(machine["gpus"]) or "a GPU that the driver does not name"
    sections = [
        "# On an NVIDIA GPU",
        f"Measured by `make bench-gpu`. Machine: {gpus}; {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}; onnxruntime-gpu {versions['onnxruntime-gpu']}, torch {result['torch']}, transformers "
        f"{result['transformers']}. `make test-gpu` runs the tests there.",
        *_what_runs(result["nodes"]),
        *_speed(result["speed"]),
        *_lists(result["lists"], result["first_answer"]),
        *_soak(result.get("soak")),
        *_accuracy(result.get("accuracy")),
    ]
    return "\n\n".join(sections) + "\n"


def _what_runs(nodes: dict[str, Any]) -> Iterator[str]:
    yield "## What runs"
    counts = "; ".join(f"{name}: {one['nodes']['CUDAExecutionProvider']} of {_all(one)}" for name, one in nodes.items())
    yield (
        '`edgelm.load(path, device="cuda")` takes the fp16 variant if the bundle has one. All of its nodes run on the '
        f"GPU ({counts}), or it raises `DeviceUnavailable` with their number and kinds, unless `allow_cpu_ops=True`. "
        "What only computes shapes ONNX Runtime runs on the CPU, where shapes are kept; the graphs that edgelm "
        "exports have one such node, in masked language models alone. fp32 is fp32: TF32 is off."
    )
    yield (
        "A request whose shape came before is played back as a CUDA graph, with its inputs and outputs bound to "
        "buffers that stay on the device. Lengths are rounded up to a multiple of 8, and lists run in batches of like "
        "length. int8 is refused: CUDA has no kernels for it (`edgelm devices nvidia-cuda`)."
    )


def _all(one: dict[str, Any]) -> int:
    return sum(one["nodes"].values())


def _speed(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Latency"
    yield (
        "DistilBERT of full size (66 M parameters, random weights), token ids in the host's memory to logits there, "
        "median milliseconds, everyone in turn. *ONNX Runtime* is the same fp16 graph as people start it, without "
        'graphs; *torch.compile* has `mode="reduce-overhead"`, which uses CUDA graphs as well.'
    )
    cells = tuple(
        (str(row["rows"]), str(row["tokens"]), *(milliseconds(row["ms"][name]) for name in COLUMNS)) for row in rows
    )
    yield markdown(Table("", ("rows", "tokens", *COLUMNS), cells)).rstrip()
    worst = {name: max(row["difference"][name] / row["largest"] for row in rows) for name in COLUMNS}
    yield (
        "Largest difference of a logit from PyTorch fp32, of the largest logit: "
        + ", ".join(f"{name} {worst[name]:.1e}" for name in COLUMNS[:-1])
        + "."
    )


def _lists(rows: list[dict[str, Any]], first: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Lists, and the first answer"
    yield "The same model in fp16, texts to labels, sentences of 1 to 120 words:"
    cells = tuple((row["name"], f"{row['per_second']:,.0f}") for row in rows)
    yield markdown(Table("", ("", "sentences a second"), cells)).rstrip()
    times = ", ".join(f"{row['again_s']:.2f} s in {row['precision']}" for row in first)
    yield (
        f"A fresh process has imported edgelm, loaded the bundle and answered after {times} (median of "
        f"{first[0]['runs']})."
    )


def _soak(found: dict[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    before, after = found["before"], found["after"]
    kept = {name: (before[name], after[name]) for name in ("gpu_bytes", "resident_bytes")}
    told = [f"{size(one)} after {found['settled']}, {size(two)} after all" for one, two in kept.values()]
    shortest, longest = found["tokens"]
    yield (
        f"{found['requests']:,} requests of random length, {shortest} to {longest} tokens, in fp16: the GPU holds "
        f"{told[0]}; resident memory of the process is {told[1]}."
    )


def _accuracy(found: dict[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    yield "## Accuracy"
    yield f"A teacher fine-tuned on SST-2, on the {found['n']} sentences of its dev set, everything on the GPU:"
    cells = tuple((name, f"{row['accuracy']:.4f}", f"{row['difference']:.1e}") for name, row in found["rows"].items())
    yield markdown(Table("", ("", "accuracy", "largest difference of a logit"), cells)).rstrip()


if __name__ == "__main__":
    main()
