"""docs/peers.md and docs/peers.png, of benchmarks/peers.json; ``--check`` only says whether the page is up to date."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.bundle import staged
from edgelm.profile.table import NONE, Table, markdown, size
from page import absent, publish
from peer.figures import TOKENS, Parts, Row, artifacts, cell, executed, length, medians, timed, verdicts
from peer.table import BASE, PEERS, TEACHER

ROOT = Path(__file__).parent.parent
DOCUMENT, PICTURE, FIGURES = ROOT / "docs/peers.md", ROOT / "docs/peers.png", ROOT / "benchmarks/peers.json"
MODELS = {BASE: "DistilBERT-base, 66.4 M parameters of random value", TEACHER: "sst2-teacher, 22.7 M parameters"}


def main() -> None:
    """Write both, or check the page. Without figures there is none."""
    if not FIGURES.exists():
        absent(DOCUMENT, by="make bench")
    parts: Parts = json.loads(FIGURES.read_bytes())["parts"]
    publish(DOCUMENT, page(parts), by="benchmarks/peers_page.py")
    if timed(parts):
        from peer.picture import draw  # the README's script asks for the table alone, and needs no matplotlib

        with staged(PICTURE) as staging:
            draw({model: medians(cell(parts, model, TOKENS, 1)) for model in timed(parts)}, TOKENS, staging)


def page(parts: Parts) -> str:
    """The page as Markdown, of the parts that are there."""
    return "\n\n".join(_sections(parts)) + "\n"


def _sections(parts: Parts) -> Iterator[str]:
    yield "# edgelm beside its peers"
    yield _said("""
        Made by `make bench`, from [its result](../benchmarks/peers.json). Every peer starts from the same checkpoint in
        fp32, runs in a process of its own, in an environment of its own where its dependencies ask for one, with one
        thread, and answers the same sentences of SST-2. All are asked in turn, one request each a round. The clock runs
        in the peer's process, around the call alone; before a request that takes less than 0.2 s, the same is run once
        untimed, since the others had the caches. Whoever takes more than twice the fastest is asked less often.
    """)
    yield _said(f"Machine: {'; '.join(_machines(parts))}. Versions: {_versions(parts)}.")
    if timed(parts):
        yield "![Milliseconds for a request of 32 tokens, of every peer](peers.png)"
    if lines := [f"- {line}" for line in verdicts(parts)]:
        yield "## What was aimed at"
        yield "\n".join(_said(line, "  ") for line in lines)
    if timed(parts) and "artifacts" in parts:
        yield "## In short"
        yield words_first(overview(parts))
        yield _said(f"Milliseconds of the median request of {TOKENS} tokens; the others are of {timed(parts)[-1]}.")
    for model in timed(parts):
        yield f"## {MODELS[model]}"
        yield _said("One text: milliseconds of the median request, and of the 90th percentile.")
        yield _table(parts, model, 1)
        yield _said("Sixteen texts at once: texts a second, at the median. edgelm and LiteRT answer them one by one.")
        yield _table(parts, model, 16)
        yield _said(_counts(parts, model))
    yield from _costs(parts)
    yield from _on_arm(parts)
    yield from _failed(parts)


def overview(parts: Parts) -> Table:
    """A line for each peer: what matters most, of every model and, of the last one, what it weighs and keeps."""
    models = timed(parts)
    found = {model: medians(cell(parts, model, TOKENS, 1)) for model in models}
    made, fresh = artifacts(parts, models[-1]), _runs(parts)
    rows = []
    for name in (peer.name for peer in PEERS if any(peer.name in ms for ms in found.values())):
        kept = made.get(name, {})
        cells = (f"{found[model][name]:.3g}" if name in found[model] else NONE for model in models)
        sizes = _kept(kept)[0], size(kept["bytes"]) if "bytes" in kept else NONE
        rows.append((name, *cells, *sizes, *_started(fresh.get((models[-1], name), ()))))
    head = ("peer", *(f"{model}, ms" for model in models), "accuracy", "bytes", "first answer, s", "memory")
    return Table("", head, tuple(rows))


def _said(words: str, indent: str = "") -> str:
    joined = " ".join(words.split())
    return textwrap.fill(joined, 119, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _table(parts: Parts, model: str, batch: int) -> str:
    rows = [row for row in parts[model]["rows"] if row["batch"] == batch]
    names = [peer.name for peer in PEERS if any(row["ns"].get(peer.name) for row in rows)]
    cells = [(name, *(_cell(row["ns"].get(name), batch) for row in rows)) for name in names]
    head = ("peer", *(length(row["tokens"]).replace("SST-2's own lengths", "SST-2") for row in rows))
    return words_first(Table("", head, tuple(cells)))


def _cell(ns: list[int] | None, batch: int) -> str:
    if not ns:
        return NONE
    if batch > 1:
        return f"{batch * 1e9 / statistics.median(ns):.3g}"
    return " · ".join(f"{value / 1e6:.3g}" for value in np.percentile(ns, (50, 90)))


def _counts(parts: Parts, model: str) -> str:
    counts = {
        batch: [len(ns) for row in parts[model]["rows"] if row["batch"] == batch for ns in row["ns"].values()]
        for batch in (1, 16)
    }
    told = [f"{min(found)} to {max(found)} with a batch of {batch}" for batch, found in counts.items() if found]
    return f"Requests timed, of each peer in each cell: {', '.join(told)}."


def _costs(parts: Parts) -> Iterator[str]:
    """Start, memory, bytes and accuracy."""
    if "artifacts" not in parts:
        return
    yield "## Start, memory, size, accuracy"
    yield _said("""
        A fresh process, from its start to its first answer, the interpreter and its imports included; its resident
        memory after 21 requests; the bytes of what is loaded. What engines keep on the disk between runs (PyTorch's
        compiled kernels, edgelm's choice) is there. The bundle of `auto` holds all variants; OpenVINO stores fp32 in
        16 bits by default.
    """)
    fresh = _runs(parts)
    rows = []
    for model in MODELS:
        for name, row in artifacts(parts, model).items():
            if "error" not in row:
                rows.append((name, model, *_started(fresh.get((model, name), ())), size(row["bytes"]), *_kept(row)))
    head = ("peer", "model", "first answer, s", "memory", "bytes", "accuracy", "logits differ by")
    yield markdown(Table("", head, tuple(rows))).strip()
    yield _said("""
        Accuracy: SST-2's dev set, 872 texts, one at a time; the weights of DistilBERT-base are random. Logits differ
        from PyTorch's in fp32 by so much of its largest logit, at most, on 32 texts.
    """)


def _on_arm(parts: Parts) -> Iterator[str]:
    found = executed(parts["arm"]["rows"]) if "arm" in parts else {}
    if not found:
        return
    yield "## On ARM cores"
    yield _said("""
        Millions of instructions that one request of 32 tokens executes, on emulated cores with the engines' own wheels
        for 64-bit ARM: [a cost, not a latency](arm.md). Of sst2-teacher; edgelm's bundles are for `generic-arm64`.
    """)
    cores = list(next(iter(found.values())))
    rows = [(name, *(f"{counts[core] / 1e6:.0f}" for core in cores)) for name, counts in found.items()]
    yield words_first(Table("", ("artifact", *cores), tuple(rows)))


def _runs(parts: Parts) -> dict[tuple[str, str], Any]:
    return {(row["model"], row["peer"]): row["runs"] for row in parts.get("cold", {"rows": ()})["rows"]}


def _started(runs: Any) -> tuple[str, str]:
    if not runs:
        return NONE, NONE
    seconds, resident = (statistics.median(run[name] for run in runs) for name in ("ns", "rss_bytes"))
    return f"{seconds / 1e9:.2f}", size(round(resident))


def _kept(row: Row) -> tuple[str, str]:
    differs = f"{100 * row['difference'] / row['largest']:.2g} %" if "difference" in row else NONE
    return f"{row['accuracy']:.4f}" if "accuracy" in row else NONE, differs


def _failed(parts: Parts) -> Iterator[str]:
    found: dict[tuple[str, str], list[str]] = {}
    for part in parts.values():
        for row in part["rows"]:
            errors = {row["peer"]: row["error"]} if "error" in row else row.get("errors", {})
            for peer, error in errors.items():
                models = found.setdefault((peer, error), [])
                models += [row["model"]] if row.get("model") not in (None, *models) else []
    if found:
        yield "## What did not run"
        rows = [(peer, ", ".join(models) or NONE, f"`{_plain(error)}`") for (peer, error), models in found.items()]
        yield words_first(Table("", ("peer", "model", "what it said"), tuple(rows)), words=3)


def _plain(error: str) -> str:
    """An error without what ends a cell, or a piece of code in it."""
    return error.replace("|", "/").replace("`", "'")


def words_first(table: Table, words: int = 1) -> str:
    """As Markdown, with so many columns of words, and numbers in the others."""
    head, _, *rows = markdown(table).strip().split("\n")
    rule = ["---" if index < words else "---:" for index in range(len(table.columns))]
    return "\n".join((head, f"| {' | '.join(rule)} |", *rows))


def _machines(parts: Parts) -> list[str]:
    found = {
        f"{m['cpu']}, {m['cores']} cores, {m['memory_bytes'] / 2**30:.0f} GiB, {', '.join(m['isa'])}, {m['system']}": 0
        for m in (part["machine"] for name, part in parts.items() if name != "artifacts" or len(parts) == 1)
    }
    return list(found)


def _versions(parts: Parts) -> str:
    rows = parts["artifacts"]["rows"] if "artifacts" in parts else ()
    found = sorted({f"{name} {version}" for row in rows for name, version in row.get("versions", {}).items()})
    return ", ".join(found) or NONE


if __name__ == "__main__":
    main()
