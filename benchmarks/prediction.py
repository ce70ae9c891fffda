"""How far from the roofline a request stays: models of several sizes, measured beside the peaks of the machine.

``make bench-prediction`` writes the result as JSON, which ``edgelm/roofline.py`` has its factors from. The machine
should do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgelm import console
from edgelm.bundle import staged
from edgelm.devices.conditions import now
from edgelm.devices.machine import machine
from edgelm.exporters import exporter
from edgelm.manifest import Precision
from edgelm.model import Encoder, EncoderConfig
from edgelm.profile.inputs import token_ids
from edgelm.profile.peak import peak
from edgelm.profile.timing import interleaved
from edgelm.runtimes import engine
from edgelm.schema import to_dict

ROOT = Path(__file__).parent.parent
ENGINES = ("onnxruntime", "litert")
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8-dynamic")
LENGTHS, THREADS = (16, 32, 128), (1, 2)
VOCAB = 1000  # only the rows of a text are read, however many there are
SECONDS, COUNT, ROUNDS = 0.3, 20, 3
PAUSED, REST_S = ("MiniLM", "MiniLM, pruned"), 0.02


def shapes() -> dict[str, EncoderConfig]:
    """What is measured: whole models and pruned ones, of random weights."""

    def shape(dim: int, head_dim: int, heads: tuple[int, ...], ffn: tuple[int, ...], **more: Any) -> EncoderConfig:
        sizes: dict[str, Any] = {"vocab_size": VOCAB, "max_positions": max(LENGTHS)}
        return EncoderConfig(dim=dim, head_dim=head_dim, heads=heads, ffn=ffn, labels=("a", "b"), **sizes, **more)

    return {
        "DistilBERT": shape(768, 64, (12,) * 6, (3072,) * 6),
        "DistilBERT, pruned": shape(768, 64, (8, 7, 6, 6, 4, 3), (1536, 1280, 1024, 768, 640, 512)),
        "BERT-small": shape(512, 64, (8,) * 4, (2048,) * 4),
        "MiniLM": shape(384, 32, (12,) * 6, (1536,) * 6),
        "MiniLM, tokens": shape(384, 32, (12,) * 6, (1536,) * 6, task="token-classification"),
        "MiniLM, pruned": shape(384, 32, (4, 4, 3, 3, 2, 2), (512, 448, 320, 256, 192, 128)),
        "BERT-mini": shape(256, 64, (4,) * 4, (1024,) * 4),
    }


def main() -> None:
    """Export, or take what was exported, and measure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, default=ROOT / "build" / "prediction", help="artifacts, kept")
    arguments.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "prediction.json")
    arguments.add_argument("--export", action="store_true", help="only write the artifacts")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    with console.progress("export", len(shapes())) as advance:
        for name, config in shapes().items():
            export(given.folder, name, config)
            advance(1)
    if given.export:
        return
    before = now()
    rows = [row for threads in THREADS for name in shapes() for row in measure(given.folder, name, threads)]
    result = {
        "schema": "edgelm.bench-prediction/1",
        "machine": to_dict(machine()),
        "load": [before.load, now().load],
        "shapes": {name: asdict(config) for name, config in shapes().items()},
        "peaks": [to_dict(peak(threads)) for threads in THREADS],
        "rows": rows,
        "paused": [row for name in PAUSED for row in measure(given.folder, name, max(THREADS), REST_S)],
    }
    with staged(given.out) as staging:
        staging.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def export(folder: Path, name: str, config: EncoderConfig) -> None:
    """Write the artifacts of a shape that are not there."""
    for runs_on in ENGINES:
        form = engine(runs_on).FORMAT
        if all(place(folder, name, runs_on, precision).exists() for precision in PRECISIONS):
            continue
        torch.manual_seed(0)
        made = exporter(form).export(Encoder(config).eval(), PRECISIONS, LENGTHS, tell=lambda report: None)
        for precision, artifact in made.items():
            target = place(folder, name, runs_on, precision)
            target.parent.mkdir(parents=True, exist_ok=True)
            with staged(target) as staging:
                staging.write_bytes(artifact)


def place(folder: Path, name: str, runs_on: str, precision: str) -> Path:
    """Where an artifact is kept."""
    return folder / f"{name.replace(', ', '-')}.{runs_on}.{precision}"


def measure(folder: Path, name: str, threads: int, rest_s: float = 0.0) -> list[dict[str, Any]]:
    """Every variant of a shape at every length, in several rounds. Of each the round that was disturbed least counts.

    A variant runs alone and without pauses: a processor that slept in between takes its time to wake, which is no
    matter of a roofline. How much that is, a rest of ``rest_s`` before every sample shows.
    """
    found: dict[tuple[str, str, int], list[float]] = {}
    for _ in range(ROUNDS):
        peak(threads)  # the best is remembered: whatever is less was disturbed
        for runs_on, precision in itertools.product(ENGINES, PRECISIONS):
            session = engine(runs_on).load(place(folder, name, runs_on, precision).read_bytes(), threads=threads)
            for tokens in LENGTHS:
                request = partial(session.run, *token_ids(tokens, batch=1, vocab=VOCAB))
                times = interleaved({"": request}, warmup=5, seconds=SECONDS, min_count=COUNT, rest_s=rest_s)[""]
                found.setdefault((runs_on, precision, tokens), []).append(float(np.median(times)) / 1e6)
            session.close()
    rows = []
    for (runs_on, kind_of, tokens), medians in found.items():
        kind = {"shape": name, "engine": runs_on, "precision": kind_of, "threads": threads, "tokens": tokens}
        rows.append(kind | {"p50_ms": min(medians), "rounds_ms": medians})
        print(f"{name:20} {runs_on:12} {kind_of:13} {threads} {tokens:4} {min(medians):8.3f} ms", flush=True)
    return rows


if __name__ == "__main__":
    main()
